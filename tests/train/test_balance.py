"""The warning comes once, after enough lines without an error, and not where one side errs."""

from seqjax.train.balance import LINES, Balance


def said(caplog, accuracies):
    balance = Balance()
    for step, (real, fake) in enumerate(accuracies):
        balance.watch(step, {"d/real_accuracy_a": real, "d/fake_accuracy_a": fake, "d/loss": 1.0})
    return [record.getMessage() for record in caplog.records]


def test_a_discriminator_that_never_errs_is_named_once(caplog):
    (message,) = said(caplog, [(1.0, 0.995)] * (2 * LINES))
    assert f"step {LINES - 1}: d/real_accuracy_a" in message


def test_lines_have_to_follow_each_other(caplog):
    assert not said(caplog, [*[(1.0, 1.0)] * (LINES - 1), (1.0, 0.9), *[(1.0, 1.0)] * (LINES - 1)])


def test_being_right_on_one_side_is_not_winning(caplog):
    assert not said(caplog, [(1.0, 0.0)] * 30)
