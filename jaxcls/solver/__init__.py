"""Solvers of the linear softmax classifier: L-BFGS, which takes most of the time, and Newton's method, which proves."""

from jaxcls.solver import eigenbasis, lbfgs, newton

__all__ = ["eigenbasis", "lbfgs", "newton"]
