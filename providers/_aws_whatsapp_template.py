"""Templates with their variables, as Meta's "Template" objects. A template's own words are Meta's:
what is filled in is checked by its form, and against a template that was listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.domain import VendorTemplate
from gateway.errors import Unsupported
from providers._aws_whatsapp_limits import refused, text_of

# "Template Messages" (WhatsApp Cloud API): components and their parameters
LANGUAGE = "en_US"
NAME = re.compile(r"[a-z0-9_]{1,512}")
LANGUAGES = re.compile(r"[a-z]{2,3}(_[A-Z]{2,3})?")
VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,99}")
BUTTON = re.compile(r"button\.([0-9])")
LONGEST = 1024
BUTTONS = {"text": "url", "payload": "quick_reply", "coupon_code": "copy_code"}
BUTTONED = "button."
VARIABLES = "template.variables"


def template(given: Mapping[str, Any], header: Mapping[str, Any] | None) -> dict[str, Any]:
    """The object of a message's `template`. `header` is its file, if it has one."""
    name = str(given.get("name") or "")
    if not NAME.fullmatch(name):
        text = "a template's name has small letters, digits and _"
        raise refused(text, "template", field="template.name")
    language = _language(given)
    if not LANGUAGES.fullmatch(language):
        text = "template.language must be such as en_US or de"
        raise refused(text, "template", field="template.language")
    made: dict[str, Any] = {"name": name, "language": {"code": language}}
    components = _components(_named(given.get("variables")), header)
    return {**made, "components": components} if components else made


def _language(given: Mapping[str, Any]) -> str:
    return str(given.get("language") or LANGUAGE).replace("-", "_")


def fits(given: Mapping[str, Any], listed: Sequence[VendorTemplate]) -> None:
    """Refuses variables that are not those of their template, where its words were listed: Meta
    says 132000 to such, once the message is on its way. What a quick reply carries may be left out,
    and no list tells of it.

    Raises:
        Unsupported: the text has both.
    """
    wanted = _listed(given, listed)
    if wanted is None:
        return
    names = _named(given.get("variables")).keys()
    filled, opened = _places(names), _places(wanted.variables)
    lacking = [name for name in wanted.variables if name.startswith(BUTTONED) and name not in names]
    if filled != opened or lacking:
        raise _other(wanted, list(names))


def _listed(given: Mapping[str, Any], listed: Sequence[VendorTemplate]) -> VendorTemplate | None:
    """The template that is meant, if what it says is known."""
    meant = str(given.get("name") or ""), _language(given)
    found = (one for one in listed if (one.name, one.language) == meant)
    return next((one for one in found if one.body), None)


def _places(names: Iterable[str]) -> set[str]:
    """What is filled in, but for buttons; a header's only one may have a number or none."""
    plain = ("header" if name == "header.1" else name for name in names)
    return {name for name in plain if not name.startswith(BUTTONED)}


def _other(wanted: VendorTemplate, names: Sequence[str]) -> Unsupported:
    takes, given = (", ".join(each[:20]) or "none" for each in (wanted.variables, names))
    text = f"{wanted.name} ({wanted.language}) takes the variables {takes}; given were {given}"
    return refused(text, "template", field=VARIABLES)


def _named(variables: object) -> Mapping[str, Any]:
    """Variables by name; those of a list are called 1, 2 and so on."""
    if isinstance(variables, list):
        return {str(number): value for number, value in enumerate(variables, 1)}
    if isinstance(variables, Mapping):
        return {str(name): value for name, value in variables.items()}
    if variables is None:
        return {}
    raise refused("template.variables must be an object or a list", "template", field=VARIABLES)


def _components(
    variables: Mapping[str, Any], header: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    buttons = {name: value for name, value in variables.items() if name.startswith(BUTTONED)}
    head = {n.partition(".")[2] or "1": v for n, v in variables.items() if _of_header(n)}
    body = {n: v for n, v in variables.items() if n not in buttons and not _of_header(n)}
    if head and header is not None:
        text = "a template's header is a file or text, not both"
        raise refused(text, "template", field="media")
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
            text = "template.variables must be numbered from 1 without a gap"
            raise refused(text, "template", field=VARIABLES)
        return [{"type": "text", "text": texts[number]} for number in wanted]
    if not all(VARIABLE.fullmatch(name) for name in texts):
        text = "template.variables are all numbered, or all have names"
        raise refused(text, "template", field=VARIABLES)
    return [{"type": "text", "parameter_name": n, "text": text} for n, text in texts.items()]


def _text(value: object, name: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return text_of(value, f"the variable {name[:40]}", LONGEST, f"{VARIABLES}.{name[:40]}")


def _button(name: str, value: object) -> dict[str, Any]:
    """What a button carries: the end of its URL; or, in an object, what else it is."""
    found = BUTTON.fullmatch(name)
    if found is None:
        text = "the variables of buttons are button.0 to button.9"
        raise refused(text, "template", field=VARIABLES)
    given = value if isinstance(value, Mapping) else {"text": value}
    kind = next(iter(given), "")
    if len(given) != 1 or kind not in BUTTONS:
        text = f"{name} must be text, or one of {', '.join(BUTTONS)} in an object"
        raise refused(text, field=f"{VARIABLES}.{name}")
    return {
        "type": "button",
        "sub_type": BUTTONS[kind],
        "index": found[1],
        "parameters": [{"type": kind, kind: _text(given[kind], name)}],
    }
