"""A scikit-learn pipeline: standardised features and a cross-validated path of regularisation values."""

from sklearn.datasets import load_breast_cancer
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxcls.estimators import SoftmaxClassifierCV

if __name__ == "__main__":
    cancer = load_breast_cancer()
    X, X_test, y, y_test = train_test_split(cancer.data, cancer.target, stratify=cancer.target, random_state=0)
    model = make_pipeline(StandardScaler(), SoftmaxClassifierCV(reg=20)).fit(X, y)
    print(f"reg {model[-1].best_params_['reg']:.1e}, {model[-1].best_score_:.4f} over the folds")
    print(classification_report(y_test, model.predict(X_test), target_names=cancer.target_names))
