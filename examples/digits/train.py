"""A real training run: a small neural network that reads handwritten digits.

The data comes with scikit-learn. The platform takes the lines that say `platform` or `run`.
"""

from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import engineersofai_platform as platform

EPOCHS = 15
BATCH_SIZE = 64
CLASSES = list(range(10))

images, labels = load_digits(return_X_y=True)
images = images / 16.0
train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.2, random_state=7, stratify=labels)
model = MLPClassifier(hidden_layer_sizes=(64,), learning_rate_init=0.003, random_state=7)

with platform.training_run(name="digits") as run:
    run.log_params({"hidden": 64, "learning_rate": 0.003, "batch_size": BATCH_SIZE, "epochs": EPOCHS})
    for epoch in range(EPOCHS):
        for start in range(0, len(train_x), BATCH_SIZE):
            batch = slice(start, start + BATCH_SIZE)
            model.partial_fit(train_x[batch], train_y[batch], classes=CLASSES)
        loss = log_loss(train_y, model.predict_proba(train_x), labels=CLASSES)
        accuracy = model.score(test_x, test_y)
        print(f"epoch {epoch + 1:2}/{EPOCHS}  loss {loss:.4f}  accuracy {accuracy:.4f}")
        run.log_metrics({"loss": loss, "accuracy": accuracy}, step=epoch)
        run.log_progress(epoch + 1, EPOCHS)
    version = run.register_model(model, "digits-classifier", example=test_x[:3])
    print(f"registered {version.name} version {version.version or 'pending'}")
