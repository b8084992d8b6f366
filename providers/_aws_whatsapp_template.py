"""Templates with their variables, as Meta's "Template" objects: a template's own words are Meta's,
so only the form of what is filled in can be checked here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from providers._aws_whatsapp_limits import refused, text_of

# "Template Messages" (WhatsApp Cloud API): components and their parameters
LANGUAGE = "en_US"
NAME = re.compile(r"[a-z0-9_]{1,512}")
LANGUAGES = re.compile(r"[a-z]{2,3}(_[A-Z]{2,3})?")
VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,99}")
BUTTON = re.compile(r"button\.([0-9])")
LONGEST = 1024
BUTTONS = {"text": "url", "payload": "quick_reply", "coupon_code": "copy_code"}


def template(given: Mapping[str, Any], header: Mapping[str, Any] | None) -> dict[str, Any]:
    """The object of a message's `template`. `header` is its file, if it has one."""
    name = str(given.get("name") or "")
    if not NAME.fullmatch(name):
        raise refused("a template's name has small letters, digits and _", "template")
    language = str(given.get("language") or LANGUAGE).replace("-", "_")
    if not LANGUAGES.fullmatch(language):
        raise refused("template.language must be such as en_US or de", "template")
    made: dict[str, Any] = {"name": name, "language": {"code": language}}
    components = _components(_named(given.get("variables")), header)
    return {**made, "components": components} if components else made


def _named(variables: object) -> Mapping[str, Any]:
    """Variables by name; those of a list are called 1, 2 and so on."""
    if isinstance(variables, list):
        return {str(number): value for number, value in enumerate(variables, 1)}
    if isinstance(variables, Mapping):
        return {str(name): value for name, value in variables.items()}
    if variables is None:
        return {}
    raise refused("template.variables must be an object or a list", "template")


def _components(
    variables: Mapping[str, Any], header: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    buttons = {name: value for name, value in variables.items() if name.startswith("button.")}
    head = {n.partition(".")[2] or "1": v for n, v in variables.items() if _of_header(n)}
    body = {n: v for n, v in variables.items() if n not in buttons and not _of_header(n)}
    if head and header is not None:
        raise refused("a template's header is a file or text, not both", "template")
    made = []
    if header is not None:
        made.append({"type": "header", "parameters": [dict(header)]})
    elif head:
        made.append({"type": "header", "parameters": _parameters(head)})
    if body:
        made.append({"type": "body", "parameters": _parameters(body)})
    return made + [_button(name, buttons[name]) for name in sorted(buttons)]


def _of_header(name: str) -> bool:
    return name == "header" or name.startswith("header.")


def _parameters(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """By number, without a gap, or by name."""
    texts = {name: _text(value, name) for name, value in variables.items()}
    if all(name.isdecimal() for name in texts):
        wanted = [str(number) for number in range(1, len(texts) + 1)]
        if set(texts) != set(wanted):
            raise refused("template.variables must be numbered from 1 without a gap", "template")
        return [{"type": "text", "text": texts[number]} for number in wanted]
    if not all(VARIABLE.fullmatch(name) for name in texts):
        raise refused("template.variables are all numbered, or all have names", "template")
    return [{"type": "text", "parameter_name": n, "text": text} for n, text in texts.items()]


def _text(value: object, name: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return text_of(value, f"the variable {name[:40]}", LONGEST)


def _button(name: str, value: object) -> dict[str, Any]:
    """What a button carries: the end of its URL; or, in an object, what else it is."""
    found = BUTTON.fullmatch(name)
    if found is None:
        raise refused("the variables of buttons are button.0 to button.9", "template")
    given = value if isinstance(value, Mapping) else {"text": value}
    kind = next(iter(given), "")
    if len(given) != 1 or kind not in BUTTONS:
        raise refused(f"{name} must be text, or one of {', '.join(BUTTONS)} in an object")
    return {
        "type": "button",
        "sub_type": BUTTONS[kind],
        "index": found[1],
        "parameters": [{"type": kind, kind: _text(given[kind], name)}],
    }
