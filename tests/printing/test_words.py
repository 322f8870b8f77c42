"""Words of what a run found."""

from tl_toolkit.printing.words import describe_folds


def metrics_of(*epochs):
    """Metrics of folds that kept these epochs, where their mean kept epoch 3 of tune."""
    best = {"phase": "tune", "epoch": 3, "val_accuracy": 0.7274}
    each = [{"best": {"phase": phase, "epoch": epoch}} for phase, epoch in epochs]
    return {"best": best, "folds": {"each": each}}


def test_folds_that_chose_other_epochs_are_told_with_the_score_of_the_one_that_is_kept():
    text = describe_folds(metrics_of(("tune", 3), ("probe", 1)), "accuracy", "accuracy")

    assert text == (
        "each fold chose the epoch of its model, so that this is a little too good; the epoch "
        "that is kept has accuracy 0.7274 in the mean of the folds"
    )


def test_folds_that_all_chose_the_epoch_that_is_kept_are_no_matter():
    assert describe_folds(metrics_of(("tune", 3), ("tune", 3)), "accuracy", "accuracy") == ""
