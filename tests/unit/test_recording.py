"""What was recorded for the alerts is read as it was written."""

from alerts.recording import STALE, values, written


def test_a_series_is_written_shortly_and_read_as_it_was() -> None:
    series = [1.0, 1.0, 3.0, 5.0, None, 2.5, 2.5, STALE, None, None, -3539.312, 1e12, 1e12 - 1, 5.0]
    text = " ".join(written(series))
    assert text == "1x1 3+2x1 _ 2.5x1 stale _ _ -3539.312 1000000000000-1x1 5"
    assert list(values(text)) == [None if value == STALE else value for value in series]
