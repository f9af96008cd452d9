"""Join the rows of several requests to one call, and split its outputs again."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from cortex.model_server.batching_queue import Piece
from cortex.model_server.call import Call
from cortex.model_server.engines.base import Array, Arrays
from cortex.model_server.status import Code, StatusError


def count(call: Call) -> int | None:
    """Return the number of rows, or None for a call that cannot be joined with others."""
    if any(array.ndim == 0 for array in call.inputs.values()):
        return None
    sizes = {array.shape[0] for array in call.inputs.values()}
    return sizes.pop() if len(sizes) == 1 and sizes != {0} else None


def kind(call: Call, *, padded: bool) -> Hashable:
    """Return what calls must have in common to be joined: signature, dtypes, and shapes but for the rows.

    With padding it is the rank that counts, not the shape. Which outputs are wanted does not matter.
    """
    return call.signature, tuple(
        (alias, array.dtype.str, array.ndim if padded else array.shape[1:])
        for alias, array in sorted(call.inputs.items())
    )


def joined(batch: Sequence[Piece], padding: int) -> Call:
    """Join the inputs, with the first row repeated ``padding`` times; ask for every output that a request wants."""
    first = batch[0].task.call
    if len(batch) == 1 and not padding and batch[0].rows == batch[0].task.rows:
        return first
    inputs: Arrays = {}
    for alias in first.inputs:
        parts = _same_shape([_rows(piece, piece.task.call.inputs)[alias] for piece in batch])
        inputs[alias] = np.concatenate([*parts, *[parts[0][:1]] * padding])
    wanted = {alias for piece in batch for alias in piece.task.call.outputs}
    outputs = first.outputs if wanted == set(first.outputs) else tuple(sorted(wanted))
    return Call(first.signature, inputs, outputs)


def split(batch: Sequence[Piece], outputs: Mapping[str, Array], size: int) -> None:
    """Give each request its rows of the outputs it wants; FAILED_PRECONDITION where one of them has no such rows."""
    without = [alias for alias, array in outputs.items() if array.ndim == 0 or array.shape[0] != size]
    start = 0
    for piece in batch:
        wanted = piece.task.call.outputs
        if bad := [alias for alias in without if alias in wanted]:
            piece.task.fail(_without_rows(bad[0]))
        else:
            rows = {alias: outputs[alias][start : start + piece.rows] for alias in wanted}
            piece.task.answer(piece.start, piece.rows, rows)
        start += piece.rows


def whole(answers: Sequence[Arrays], *, padded: bool) -> Arrays:
    """Return the answer to a request, given those to its pieces; FAILED_PRECONDITION where they do not fit together.

    With padding they are as wide as the widest of the batches that the pieces ran in.
    """
    if len(answers) == 1:
        return answers[0]
    return {alias: _joined(alias, [answer[alias] for answer in answers], padded) for alias in answers[0]}


def _joined(alias: str, parts: Sequence[Array], padded: bool) -> Array:
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    if padded:
        return np.concatenate(_same_shape(parts))
    shapes = ", ".join(str(list(part.shape)) for part in parts)
    raise StatusError(
        Code.FAILED_PRECONDITION,
        f"Output tensor {alias} of a request that was split does not have one shape in all of its batches: {shapes}",
    )


def _without_rows(alias: str) -> StatusError:
    return StatusError(
        Code.FAILED_PRECONDITION,
        f"Batched output tensor {alias}'s 0th dimension does not equal the sum of the 0th dimension sizes of the input "
        "tensors",
    )


def _rows(piece: Piece, inputs: Mapping[str, Array]) -> Arrays:
    return {alias: array[piece.start : piece.start + piece.rows] for alias, array in inputs.items()}


def _same_shape(parts: Sequence[Array]) -> list[Array]:
    """Pad every part, but in its rows, to the widest of them with its own first element, as TF Serving does."""
    widest = tuple(max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True))
    return [_widened(part, widest) for part in parts]


def _widened(part: Array, shape: tuple[int, ...]) -> Array:
    if part.shape[1:] == shape:
        return part
    empty = b"" if part.dtype == np.object_ else np.zeros((), part.dtype)[()]
    wide = np.full((part.shape[0], *shape), part.flat[0] if part.size else empty, part.dtype)
    wide[tuple(slice(size) for size in part.shape)] = part
    return wide
