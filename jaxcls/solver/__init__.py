"""Solvers of the linear softmax classifier: L-BFGS, which takes most of the time, and Newton's method, which proves."""

from jaxcls.solver import arguments, eigenbasis, lbfgs, newton
from jaxcls.solver.eigenbasis import ARRAYS, Moments

__all__ = ["ARRAYS", "Moments", "arguments", "eigenbasis", "lbfgs", "newton"]
