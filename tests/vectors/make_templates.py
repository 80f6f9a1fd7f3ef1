#!/usr/bin/env python3
"""Chat templates and what transformers makes of them: templates/rendered.json, language.json.

The reference is transformers' own render_jinja_template over jinja2. Its clock is set to NOW. Where
it raises an error the answer is null. template_sources.py has the templates and conversations,
template_snippets.py the language in small pieces. Writes the seeds of tests/fuzz/jinja.c too.
"""

import datetime
import json
import os
import re

import jinja2
import transformers
from transformers.utils import chat_template_utils as reference

import template_snippets as snippets
import template_sources as sources

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")
SEEDS = os.path.join(HERE, "..", "..", "fuzz", "seeds", "jinja")
NOW = 1785000009  # seconds since 1970: 25 July 2026, 17:20:09 UTC
BOS, EOS = "<s>", "</s>"
LIMIT = 300_000


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)


def render(text, messages, tools, variables, generation):
    """The prompt, or None if transformers refuses."""
    try:
        rendered, _ = reference.render_jinja_template(
            [messages], tools=tools, chat_template=text, add_generation_prompt=generation,
            **{"bos_token": BOS, "eos_token": EOS, **variables})
        return rendered[0]
    except Exception as error:  # jinja2's and Python's, whatever a template provokes
        assert not isinstance(error, (MemoryError, NameError, ImportError)), (text, error)
        return None


def write(name, head, rows):
    """One key a line, and the last one with one row a line."""
    path = os.path.join(HERE, name)
    with open(path, "w", encoding="ascii", newline="\n") as f:
        f.write("{\n")
        for key, value in head.items():
            f.write("%s: %s,\n" % (json.dumps(key), json.dumps(value, separators=(",", ":"))))
        f.write('"rows": [\n%s\n]\n}\n' % ",\n".join(
            json.dumps(r, separators=(",", ":")) for r in rows))
    return os.path.getsize(path)


def make_rendered():
    """rows: template, conversation, prompt or null."""
    conversations = {
        name: {"messages": messages, **({"tools": tools} if tools else {}),
               **({"variables": variables} if variables else {}), "generation": generation}
        for name, (messages, tools, variables, generation) in sources.CONVERSATIONS.items()}
    rows, refused = [], 0
    for name, (used, text) in sources.TEMPLATES.items():
        for which in used:
            prompt = render(text, *sources.CONVERSATIONS[which])
            refused += prompt is None
            rows.append([name, which, prompt])
    size = write("rendered.json", {
        "now": NOW, "bos": BOS, "eos": EOS, "conversations": conversations,
        "templates": {name: text for name, (_, text) in sources.TEMPLATES.items()}}, rows)
    used = {r[1] for r in rows}
    assert used == set(conversations), set(conversations) - used
    print("%d templates, %d prompts, %d refused, %d KB" % (
        len(sources.TEMPLATES), len(rows), refused, size // 1000))
    return size


def pieces(text):
    """A snippet and, if it has several expressions and no tags, each of them."""
    out = [text]
    if "{%" not in text and text.count("{{") > 6:
        out = re.findall(r"\{\{.*?\}\}(?:\}*)\|?", text)
        out = [" ".join(out[i:i + 6]) for i in range(0, len(out), 6)]
    return out


def make_language():
    """rows: template and its text, or the template alone if it is refused."""
    variables = dict(snippets.VARIABLES)
    messages = variables.pop("messages")
    rows, refused = [], 0
    for snippet in snippets.all_snippets():
        for text in pieces(snippet):
            got = render(text, messages, None, variables, True)
            again = render(text, messages, None, variables, True)
            assert got == again and " at 0x" not in (got or ""), (text, got)
            refused += got is None
            rows.append([text] if got is None else [text, got])
    size = write("language.json", {"now": NOW, "bos": BOS, "eos": EOS, "messages": messages,
                                   "variables": variables}, rows)
    print("%d snippets, %d refused, %d KB" % (len(rows), refused, size // 1000))
    return size


def make_seeds():
    """What tests/fuzz/jinja.c begins with: a template, a NUL, messages, a NUL, variables."""
    os.makedirs(SEEDS, exist_ok=True)
    for name, (used, text) in sources.TEMPLATES.items():
        messages, _, variables, _ = sources.CONVERSATIONS[used[-1]]
        parts = [text, json.dumps(messages), json.dumps(variables)]
        with open(os.path.join(SEEDS, name), "wb") as f:
            f.write("\0".join(parts).encode())
    blocks = [snippets.PRINTING, snippets.OPERATORS, snippets.LOOKUPS, snippets.METHODS,
              snippets.FORMATTING, snippets.FILTERS, snippets.TESTS, snippets.STATEMENTS]
    variables = dict(snippets.VARIABLES)
    messages = variables.pop("messages")
    for i, block in enumerate(blocks):
        good = [t for t in snippets.lines(block)
                if render(t, messages, None, variables, True) is not None]
        for k, text in enumerate(good):
            with open(os.path.join(SEEDS, "language-%d-%02d" % (i, k)), "wb") as f:
                f.write(text.encode())


def main():
    reference.datetime = Clock
    make_seeds()
    total = make_rendered() + make_language()
    print("transformers %s, jinja2 %s, %d KB" % (transformers.__version__, jinja2.__version__,
                                                 total // 1000))
    assert total <= LIMIT, total


if __name__ == "__main__":
    main()
