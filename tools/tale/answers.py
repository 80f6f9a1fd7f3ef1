#!/usr/bin/env python3
"""Measure the skills of the model as the engine runs it, in any format.

    answers.py --items 100 --prompts prompts.txt
    build/release/answers MODEL <prompts.txt >answers.txt
    answers.py --items 100 --answers answers.txt
"""

import argparse
import json

from tokenizers import Tokenizer

import make_corpus
import skills


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--tokenizer", default="models/tale-8m/tokenizer.json")
    ap.add_argument("--items", type=int, default=100)
    ap.add_argument("--prompts", help="write the prompts here")
    ap.add_argument("--answers", help="grade these")
    args = ap.parse_args()
    tok = Tokenizer.from_file(args.tokenizer)
    items = sorted(make_corpus.eval_items(args.items), key=lambda x: len(x["prompt"]))
    if args.prompts:
        with open(args.prompts, "w", encoding="ascii") as f:
            for x in items:
                ids = tok.encode(x["prompt"], add_special_tokens=False).ids
                print(skills.LIMITS.get(x["skill"], 64), *ids, file=f)
        return
    stop = tok.token_to_id("<|end|>")
    right, asked = {}, {}
    with open(args.answers, encoding="ascii") as f:
        for x, line in zip(items, f, strict=True):
            ids = [int(i) for i in line.split()]
            got = tok.decode(ids, skip_special_tokens=True)
            ok = bool(ids) and ids[-1] == stop and skills.check(x["check"], x["answer"], got)
            asked[x["skill"]] = asked.get(x["skill"], 0) + 1
            right[x["skill"]] = right.get(x["skill"], 0) + ok
    table = {s: round(100 * right[s] / asked[s], 1) for s in asked}
    table["all"] = round(100 * sum(right.values()) / sum(asked.values()), 2)
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
