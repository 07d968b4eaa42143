from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.sim.tasks import (
    DEMONSTRATION_TASKS,
    EVALUATION_SEED_START,
    TASKS,
    find_task,
    training_seed,
)


def test_every_task_has_instructions_of_its_own():
    instructions = [r.instruction for task in TASKS.values() for r in task.requests]
    assert len(set(instructions)) == len(instructions) >= len(TASKS)
    assert all(text and text == text.strip() for text in instructions)


def test_demonstrations_are_of_tasks_that_exist_in_scenes_where_words_decide():
    assert set(DEMONSTRATION_TASKS) <= set(TASKS)
    assert len(set(DEMONSTRATION_TASKS)) == len(DEMONSTRATION_TASKS) >= 10
    tasks = [TASKS[name] for name in DEMONSTRATION_TASKS]
    exchanged = [task for task in tasks if task.other]
    assert len(exchanged) >= 6
    assert all(task.other in DEMONSTRATION_TASKS for task in exchanged)


def test_an_unknown_task_is_answered_with_the_list_of_tasks():
    with pytest.raises(ValueError, match="'fly'.*reach, push.*handle-press"):
        find_task("fly")


@given(st.integers(0, 2**40), st.sampled_from(sorted(TASKS)), st.integers(0, 2**40))
def test_training_seeds_are_never_evaluation_seeds(seed, task, index):
    assert 0 <= training_seed(seed, task, index) < EVALUATION_SEED_START
    assert training_seed(seed, task, index) == training_seed(seed, task, index)


def test_training_seeds_differ_with_each_argument_and_stay_as_they_were():
    assert training_seed(0, "reach", 0) == 981472
    other_arguments = [(1, "reach", 0), (0, "push", 0), (0, "reach", 1)]
    others = {training_seed(*arguments) for arguments in other_arguments}
    assert len(others | {981472}) == 4
