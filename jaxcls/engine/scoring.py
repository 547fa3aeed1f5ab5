"""The examples and cells that a program scores together, and the batches of a stage that are filled up to these."""

from collections import Counter

from jaxcls.engine import cells
from jaxcls.engine.blocks import COMPILATION, Stack, groups
from jaxcls.engine.plan import Plan
from jaxcls.train import EVALUATION_BATCH

TO_SCORE = 1 / 10  # of what all programs of a group take to compile: a program to score with


def scored_together(plan: Plan, stage: int, stack: Stack) -> tuple[set[int], int]:
    """The numbers of examples and of cells that a stage scores together; fewer are filled up to these.

    One program serves for several numbers, and for the narrower stacks of later stages, where filling up takes less
    time than compiling another. The numbers of examples are the same for all stacks of a block, which share these.
    """
    problem, (num_replicates, num_cells) = plan.groups[stack.group].problem, stack.rows.shape
    firsts = {each.group: each for block in reversed(plan.blocks) for each in reversed(block)}
    first, batches = firsts[stack.group], _batches(plan, stage)
    of_all_stages = _batches(plan, len(plan.schedule.stages) - 1) | batches
    sharing = firsts.values() if plan.stream else (first,)
    of_example = sum(each.rows.size * cells.work(plan.groups[each.group].problem) for each in sharing)
    sizes = [group[-1] for group in groups(of_all_stages, of_example / len(sharing) / TO_SCORE)]
    filled = {count: min(size for size in sizes if size >= count) for count in batches}
    num_examples = sum(filled[count] * times for count, times in batches.items())
    wider = (first.rows.size - stack.rows.size) * num_examples * cells.work(problem) < TO_SCORE * COMPILATION
    wider = wider and len(first.rows) == num_replicates
    return set(filled.values()), first.rows.shape[1] if wider else num_cells


def _batches(plan: Plan, stage: int) -> Counter[int]:
    """Numbers of examples that a stage scores together, and the times that it does.

    At a rung, val alone is scored; at the end, all parts; and a minibatch and val at each recorded step.
    """
    at_rung = stage + 1 < len(plan.schedule.stages) and not plan.grid.fold and plan.patience is None
    records = sum(plan.schedule.records(chunk[-1]) for chunk in plan.schedule.after(0, stage))
    times = Counter({plan.batch_size: records} if records else {})
    once = plan.scored_parts[-1:] if at_rung else plan.scored_parts
    for count in (*once, *plan.scored_parts[-1:] * records):
        times.update(min(EVALUATION_BATCH, count - first) for first in range(0, count, EVALUATION_BATCH))
    return times
