from __future__ import annotations

from deer_ros.report.progress import count


def test_a_log_hears_of_many_results_now_and_then(capsys):
    """Every result where the time between lines is none, and nothing before it is over."""
    assert list(count(iter("abc"), "episodes", 3, every_s=0.0)) == ["a", "b", "c"]
    assert capsys.readouterr().err.split("\n") == [
        "episodes 1/3", "episodes 2/3", "episodes 3/3", ""]
    assert list(count(iter("abc"), "episodes", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
