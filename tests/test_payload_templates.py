"""Templates of webhooks: what they give, and what they are refused for."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary.errors import InvalidInput
from emissary.payload_templates import parse, rendered

S3 = {"Records": [{"s3": {"bucket": {"name": "lake"}, "object": {"key": "a%2Fb+c%C3%A9.jsonl"}}}]}
VALUES: dict[str, Any] = {
    "payload": S3
    | {"items": ["ds-1", "ds-2"], "number": 3, "yes": True, "a b": {"c": "d"}, "nothing": None}
    | {"path": "/buckets/lake/a/b.jsonl", "a": {"p": "%2Fa%2Fb"}},
    "headers": {"x-github-event": "push"},
}
RENDERED: dict[str, tuple[str, Any]] = {
    "text alone": ("ds-1", "ds-1"),
    "key of an object in S3": ("{{ payload.Records[0].s3.object.key }}", "a%2Fb+c%C3%A9.jsonl"),
    "key decoded": ("{{ payload.Records[0].s3.object.key | urldecode }}", "a/b cé.jsonl"),
    "key without what is before it": ("{{ payload.path | removeprefix('/buckets/lake/') }}", "a/b.jsonl"),
    "one filter after the other": ("{{ payload.a['p'] | urldecode | removeprefix('/a') }}", "/b"),
    "prefix that is not there": ("s3://{{ payload.path | removeprefix('buckets') }}", "s3:///buckets/lake/a/b.jsonl"),
    "text around": ("ds-{{ payload.number }}-{{payload.yes}}.", "ds-3-true."),
    "list as it is": ("{{ payload.items }}", ["ds-1", "ds-2"]),
    "field named as a method": ("{{ payload.items[1] }}", "ds-2"),
    "field with a space": ("{{ payload['a b'].c }}", "d"),
    "header in any case": ("{{ headers['X-GitHub-Event'] }}", "push"),
    "payload whole": ("{{ payload.nothing }}", None),
    "braces that are text": ("{% raw %}{{ a }}{% endraw %}", "{{ a }}"),
}
REFUSED = {
    "call": "{{ payload.items() }}",
    "repetition": "{{ 'a' * 1000000000 }}",
    "loop": "{% for i in range(10) %}{{ i }}{% endfor %}",
    "assignment": "{% set a = payload %}{{ a }}",
    "inclusion": "{% include '/etc/passwd' %}",
    "other name": "{{ config }}",
    "function": "{{ range(10) }}",
    "constant": "{{ 1 }}",
    "other filter": "{{ payload.a | tojson }}",
    "filter with arguments": "{{ payload.a | urldecode('utf-8') }}",
    "prefix that is looked up": "{{ payload.a | removeprefix(payload.b) }}",
    "prefix that is a number": "{{ payload.a | removeprefix(1) }}",
    "no prefix": "{{ payload.a | removeprefix }}",
    "prefix with a splat": "{{ payload.a | removeprefix('b', *payload.b) }}",
    "filter with a splat": "{{ payload.a | urldecode(*payload.b) }}",
    "filter of nothing": "{% filter urldecode %}a{% endfilter %}",
    "slice": "{{ payload[1:2] }}",
    "item by a name": "{{ payload[headers.a] }}",
    "negative item": "{{ payload[-1] }}",
    "condition": "{{ payload.a if payload.b }}",
    "unfinished": "{{ payload.",
    "not closed": "{{ payload.a",
    "deeply nested": "{{ " + "(" * 490 + "payload",
}
MISSING: dict[str, tuple[str, str]] = {
    "field": ("{{ payload.dataset.id }}", "payload.dataset: "),
    "inner field": ("{{ payload.Records[0].s3.objekt.key }}", "payload.Records[0].s3.objekt: "),
    "item": ("{{ payload.Records[1].s3 }}", "payload.Records[1]: "),
    "item of no list": ("{{ payload.number[0] }}", "payload.number[0]: "),
    "character of a text": ("{{ payload.items[0][0] }}", "payload.items[0][0]: "),
    "attribute of Python": ("{{ payload.__class__ }}", "payload.__class__: "),
    "attribute of text": ("{{ payload.items[0].upper }}", "payload.items[0].upper: "),
    "header": ("{{ headers.authorization }}", "headers.authorization: "),
    "list in text": ("a{{ payload.items }}", "payload.items: "),
    "null in text": ("a{{ payload.nothing }}", "payload.nothing: "),
    "number without a prefix": ("{{ payload.number | removeprefix('a') }}", "payload.number: "),
    "number decoded": ("{{ payload.number | urldecode }}", "payload.number: "),
}


@pytest.mark.parametrize(("template", "value"), RENDERED.values(), ids=RENDERED)
def test_template_gives(template: str, value: Any) -> None:
    assert rendered(template, VALUES) == value


@pytest.mark.parametrize("template", REFUSED.values(), ids=REFUSED)
def test_template_that_does_more_than_name_values_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"it is no template|only names under payload and headers|nested too deeply"):
        parse(template)


@pytest.mark.parametrize(("template", "named"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_named(template: str, named: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        rendered(template, VALUES)
    assert str(raised.value).startswith(named)


def test_text_stays_small_whatever_is_sent() -> None:
    values = {"payload": {"a": "x" * 6000}, "headers": {}}
    with pytest.raises(InvalidInput, match="more than 10000 characters"):
        rendered("{{ payload.a }}{{ payload.a }}", values)
    with pytest.raises(InvalidInput, match="at most 10000 characters"):
        rendered("-{{ payload.a }}", {"payload": {"a": "x" * 20000}, "headers": {}})


@given(st.text(max_size=60), st.text("{}%# payloadheaders.|[]'\"0", max_size=60))
def test_every_text_is_a_template_or_refused(text: str, likely: str) -> None:
    for template in (text, likely, f"{{{{ {text} }}}}", f"{{{{ payload{likely} }}}}"):
        try:
            parse(template)
        except ValueError:
            continue
        with suppress(InvalidInput):
            json.dumps(rendered(template, VALUES))
