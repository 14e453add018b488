"""Reading the user's YAML: a key that stands twice is refused, of which YAML libraries silently take the last."""

from __future__ import annotations

from typing import Any

import yaml

from ltprompt.errors import InputError

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """The safe loader, with a look at every mapping before ``<<`` is merged into it."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping. Raises `InputError`, to be opened with the file's name, where a key stands twice."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in first:
                raise InputError(f"line {line}: the key {key.value!r} stands in line {first[name]} too; remove one")
            first[name] = line
        return node


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain data in a YAML text; `where` opens an error's message.

    Raises `InputError` for text that is not valid YAML and for a key that stands twice in one mapping.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except InputError as error:
        raise InputError(f"{where}, {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
