"""scikit-learn estimators, for its pipelines, searches and cross-validation.

    SoftmaxClassifier       the linear classifier at its optimum, `jaxcls.logistic`
    SoftmaxClassifierCV     the best of many values of reg: the paths of all folds side by side
    TwoLayerClassifier      the two-layer net, by minibatch gradient descent, `jaxcls.train`
    TwoLayerClassifierCV    the best cell of a grid: one sweep for all cells and folds

As in scikit-learn, the dtype of X decides the precision: float32 trains in float32, anything else in float64, whatever
JAX's own default is. Features are not scaled: put a ``StandardScaler`` before a net.
"""

try:
    from sklearn.utils.validation import validate_data as _since_1_6  # noqa: F401
except ImportError:
    raise ImportError('jaxcls.estimators needs scikit-learn 1.6 or later: pip install "jaxcls[sklearn]"') from None

from jaxcls.estimators.linear import SoftmaxClassifier, SoftmaxClassifierCV
from jaxcls.estimators.net import TwoLayerClassifier, TwoLayerClassifierCV

__all__ = ["SoftmaxClassifier", "SoftmaxClassifierCV", "TwoLayerClassifier", "TwoLayerClassifierCV"]
