"""The tasks of `lcc eval`, generated from a seed: each name as in its benchmark."""

from lcc.measure.evaluate.sample import Task
from lcc.measure.evaluate.tasks import (
    babi,
    infinitebench,
    kamradt,
    ruler_niah,
    ruler_vt,
    ruler_words,
)

TASKS: dict[str, Task] = {
    **ruler_niah.TASKS,
    **ruler_vt.TASKS,
    **ruler_words.TASKS,
    **infinitebench.TASKS,
    **kamradt.TASKS,
    **babi.TASKS,
}
