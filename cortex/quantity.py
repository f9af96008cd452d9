"""Kubernetes quantities: ``200m`` cores, ``512Mi`` bytes.

The grammar is that of Kubernetes' ``resource.Quantity``: a decimal number, then one of ``n u m k M G T P E`` (powers of
1000), ``Ki Mi Gi Ti Pi Ei`` (powers of 1024), or an exponent such as ``e3``.
"""

import re
from decimal import Decimal

_SUFFIXES = {
    "": Decimal(1),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("num", start=-3)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
_GRAMMAR = re.compile(
    r"(?P<number>[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))"
    rf"(?:(?P<exponent>[eE][+-]?[0-9]{{1,3}})|(?P<suffix>{'|'.join(_SUFFIXES)}))"
)
_LARGEST = Decimal(2**63 - 1)


def parse_quantity(text: str) -> Decimal:
    """Return the number that a quantity stands for: cores, or bytes.

    As in Kubernetes, nothing is larger than 2**63 - 1. Raises ValueError for any other text, with a message for a
    person.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise ValueError("invalid kubernetes quantity, some valid examples are 1, 200m, 500Mi, 2G")
    if match["exponent"]:
        value = Decimal(match["number"] + match["exponent"])
    else:
        value = Decimal(match["number"]) * _SUFFIXES[match["suffix"]]
    return max(-_LARGEST, min(value, _LARGEST))


def in_thousandths(value: Decimal | float) -> str:
    """Write a number as a quantity: in thousandths, of which there is at least one."""
    thousandths = max(1, round(value * 1000))
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)
