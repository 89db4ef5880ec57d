"""The matrix products of one full hil-serl update, and nothing else: what its time is compared with."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.learner_clock import Clock, clock_of


class Product(NamedTuple):
    """(nets, rows, inner) times (nets, inner, columns); ``form``: how the operands lie, as a plain autograd would have them."""

    nets: int
    rows: int
    inner: int
    columns: int
    form: str  # "nn" forward, "tn" gradient of the weights, "nt" gradient of the input


def mlp_products(nets: int, batch: int, sizes: list[int], *, weights: bool, inputs: int) -> list[Product]:
    """Products of ``nets`` networks with layers of ``sizes`` units on ``batch`` rows: forward, and backward.

    ``weights``: with the gradients of the weights; ``inputs``: of how many of the network's inputs the gradient is needed (0: none).
    """
    found = [Product(nets, batch, i, o, "nn") for i, o in itertools.pairwise(sizes)]
    if weights:
        found += [Product(nets, i, batch, o, "tn") for i, o in itertools.pairwise(sizes)]
    if weights or inputs:
        found += [Product(nets, batch, o, i, "nt") for i, o in itertools.pairwise(sizes[1:])]
    if inputs:
        found.append(Product(nets, batch, sizes[1], inputs, "nt"))
    return found


def update_products(
    batch: int, observation: int, arm: int, hidden: int, *, gripper: bool, ensemble: int, critic_updates: int
) -> list[Product]:
    """Every product of ``critic_updates`` critic updates and one actor update, each on a batch of its own."""
    actor = [observation, hidden, hidden, 2 * arm]
    critic = [observation + arm, hidden, hidden, 3 if gripper else 1]
    once = mlp_products(1, batch, actor, weights=False, inputs=0)  # the next action
    once += mlp_products(ensemble, batch, critic, weights=False, inputs=0) * (2 if gripper else 1)  # targets; who chooses the gripper
    once += mlp_products(ensemble, batch, critic, weights=True, inputs=0)
    climb = mlp_products(1, batch, actor, weights=True, inputs=0) + mlp_products(ensemble, batch, critic, weights=False, inputs=arm)
    return once * critic_updates + climb


def measure(products: list[Product], rounds: int, device: torch.device) -> dict[str, float]:
    """Milliseconds for all of them: ``plain`` by torch.bmm as the operands lie, ``fastest`` by the best way found for each.

    The ways: torch.bmm, one torch.mm per net, and the same with the right operand, or the result, laid out the other way round.
    """
    clock = clock_of(device)
    chosen: list[Callable[[], object]] = []
    plain: list[Callable[[], object]] = []
    known: dict[Product, tuple[Callable[[], object], Callable[[], object]]] = {}
    for product in products:
        if product not in known:
            ways = _ways(product, device)
            known[product] = (min(ways, key=lambda work: _microseconds(work, clock)), ways[0])
        chosen.append(known[product][0])
        plain.append(known[product][1])
    return {"fastest_ms": _best_of(chosen, rounds, clock), "plain_ms": _best_of(plain, rounds, clock)}


def _ways(p: Product, device: torch.device) -> list[Callable[[], object]]:
    def made(rows: int, columns: int, turned: bool) -> Tensor:
        shape = (columns, rows) if turned else (rows, columns)
        found = torch.randn(p.nets, *shape, device=device)
        return found.transpose(1, 2) if turned else found

    a, b = made(p.rows, p.inner, p.form == "tn"), made(p.inner, p.columns, p.form == "nt")
    c = b.transpose(1, 2).contiguous().transpose(1, 2)
    out, turned = made(p.rows, p.columns, False), made(p.rows, p.columns, True)

    def each(x: Tensor, y: Tensor, into: Tensor) -> Callable[[], object]:
        parts = [(x[i], y[i], into[i]) for i in range(p.nets)]
        return lambda: [torch.mm(left, right, out=result) for left, right, result in parts]

    return [
        lambda: torch.bmm(a, b, out=out),
        each(a, b, out),
        lambda: torch.bmm(a, c, out=out),
        each(a, c, out),
        each(a, b, turned),
    ]


def _microseconds(work: Callable[[], object], clock: Clock) -> float:
    for _ in range(5):
        work()
    times = []
    for _ in range(20):
        started = clock()
        work()
        times.append(clock() - started)
    return sorted(times)[len(times) // 2] * 1e6


def _best_of(work: list[Callable[[], object]], rounds: int, clock: Clock) -> float:
    """Median milliseconds of doing all of ``work``."""
    times = []
    for _ in range(rounds):
        started = clock()
        for one in work:
            one()
        times.append(clock() - started)
    return sorted(times)[len(times) // 2] * 1e3
