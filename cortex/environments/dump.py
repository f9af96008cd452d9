"""YAML that every reader takes for the same: Kubernetes and Compose, which are written in Go, PyYAML, and our own.

PyYAML leaves texts without quotes that others take for numbers or dates: ``1e3``, ``08``, ``0o17``, ``2020-1-1``.
"""

import re

import yaml

_NUMBER = re.compile(
    r"[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9_]+)?$|[-+]?0[bBoOxX][0-9a-fA-F_]+$|[0-9]+(-[0-9]+){2}"
)


class Dumper(yaml.SafeDumper):
    """Write a document; a text that anybody could take for a number has quotes."""


# PyYAML's own patterns come first, so that what is a number is still written as one
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
