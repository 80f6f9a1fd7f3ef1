# shellcheck shell=sh
# Profiles, traces and bench --ops: read by tests/cli/run, whose functions and variables it uses.
# Only what is counted is asserted, never a time, but that the host's parts are most of its time.
# Needs a GPU with timestamps.

# True of a Python expression over `d`, the JSON of a file.
file_json() { # name, file, expression
    if [ -z "$python" ]; then
        skip "$1" 'no python3'
        return
    fi
    reason=$(python3 -c 'import json, sys
try: d = json.load(open(sys.argv[1]))
except ValueError as e: print("not JSON:", e); sys.exit()
if not eval("(" + sys.argv[2] + ")"): print("not true:", sys.argv[2], "of", str(d)[:300])' \
        "$2" "$3" 2>&1 | tail -n 1)
    result "$1" "$reason"
}

fails 2 '^doppler: --trace: needs a value' run -p x --trace
fails 6 "^doppler: $work: is not a regular file" run -p x -n 1 --profile-out "$work"
fails 6 "^doppler: $work: is not a regular file" bench -p 1 -n 0 --trace "$work"
# Before anything is measured: standard output is empty.
fails 6 "^doppler: $work/no/x: cannot be made: No such" run -p x -n 1 --profile-out "$work/no/x"
fails 6 "^doppler: $work/no/x: cannot be made: No such" bench -p 1 -n 0 --trace "$work/no/x"
fails 2 '^doppler: --trace: chat writes none, run and bench do$' chat --trace x
fails 2 '^doppler: --profile-out: devices writes none' devices --profile-out x
for name in chat perplexity ls logits; do
    fails 2 "^doppler: --profile: $name writes none, run and bench do$" $name --profile
done
fails 2 '"xml" is none of md, csv, json, jsonl' bench --ops -o xml
fails 2 '^doppler: -d and -p take [0-9]* tokens, the context holds 2048' bench --ops -d 2040

call run -p 'Once upon' -n 2 --profile --profile-out "$work/profile.json" \
    --trace "$work/trace.json"
same 'run --profile: exit status' "$status" 0
for line in '^measured: reading [0-9.]* GB/s, .* taken off every call' \
    '^prompt of [0-9]* tokens behind 0$' '^generation of 2 tokens behind [0-9]*$' \
    '^role  *kernel .* % fma$' '^sum of the kernels ' '^the same as it always runs ' \
    '^attn out  *.* 8\.00 ' '^sampler ' '^host a token: '; do
    grep -q -e "$line" "$work/err"
    same "run --profile: $line" $? 0
done
file_json 'run --profile-out: parts' "$work/profile.json" \
    '[p["phase"] for p in d["parts"]] == ["prefill", "decode"] and d["parts"][1]["tokens"] == 2 and
    all(p["step_us_per_unit"] > 0 and p["kernels"] and p["host"]["encode_us_per_unit"] > 0
        for p in d["parts"])'
file_json 'run --profile-out: sums' "$work/profile.json" \
    'all(abs(sum(k["us_per_unit"] for k in p["kernels"]) - p["kernels_us_per_unit"]) <=
        1e-6 * p["kernels_us_per_unit"] for p in d["parts"]) and
    all(abs(k["calls_per_unit"] * k["us_each"] - k["us_per_unit"]) <= 1e-6 * k["us_per_unit"]
        for p in d["parts"] for k in p["kernels"])'
# The whole of the weights is read for every token, 8 layers have an output projection each.
file_json 'run --profile-out: a token' "$work/profile.json" \
    'sum(k["bytes"] for k in d["parts"][1]["kernels"]) > 2 * 12e6 and
    sum(k["calls_per_unit"] for k in d["parts"][1]["kernels"] if k["role"] == "attn out") == 8'
file_json 'run --trace: events' "$work/trace.json" \
    'all(e["ts"] >= 0 and e["dur"] >= 0 for e in d["traceEvents"] if e["ph"] == "X") and
    {e["args"]["name"]: e["tid"] for e in d["traceEvents"] if e["ph"] == "M"} ==
        {"host": 1, "GPU": 2} and
    {e["name"] for e in d["traceEvents"] if e["tid"] == 1 and e["ph"] == "X"} ==
        {"encode", "submit", "wait"} and
    {e["args"]["role"] for e in d["traceEvents"] if e["tid"] == 2 and "role" in e["args"]} >=
        {"attn", "attn out", "head", "sampler"} and d["otherData"]["events_left_out"] == 0'
# On the device one thing runs after the other; numbers are told to 1 us at least.
file_json 'run --trace: order' "$work/trace.json" \
    '(lambda g: len(g) > 100 and all(a["ts"] + a["dur"] <= b["ts"] + 1 for a, b in zip(g, g[1:])))(
        sorted((e for e in d["traceEvents"] if e["ph"] == "X" and e["tid"] == 2),
            key=lambda e: e["ts"]))'

call bench -m "$tiny" -p 2 -n 1 -r 1 -d 3 --profile-out "$work/profile.json"
same 'bench --profile-out: exit status' "$status" 0
file_json 'bench --profile-out' "$work/profile.json" \
    '[(p["tokens"], p["depth"]) for p in d["parts"]] == [(2, 3), (1, 3)]'

# Nothing that takes long is left out of the host's time: what is behind it is the device, which a
# prompt of this length keeps busy for much longer than the host may be kept from going on.
call bench -p 256 -n 8 -r 1 --no-warmup --profile-out "$work/profile.json"
same 'bench --profile-out of a long prompt: exit status' "$status" 0
file_json 'bench --profile-out: parts of the host' "$work/profile.json" \
    '(lambda hosts: len(hosts) == 2 and all(
        sum(h[k + "_us_per_unit"] for k in ("encode", "submit", "wait")) >= 0.5 * h["us_per_unit"]
        for h in hosts))([p["host"] for p in d["parts"]])'

json 'all(o["us"] > 0 and o["n_timed"] > 0 and o["calls"] > 0 for o in d) and
    {o["phase"] for o in d} == {"decode", "prefill"} and
    {(o["n_rows"], o["n_depth"]) for o in d} == {(1, 5), (17, 5)} and
    {"attn qkv", "attn", "attn out", "ffn down", "head", "embed"} <=
        {o["role"] for o in d if o["phase"] == "prefill"} and
    all(o["verdict"] == "-" and o["limit_us"] is None for o in d if o["phase"] == "prefill") and
    all((o["us_in_place"] is None) == (o["role"] == "sampler") for o in d) and
    all(o["verdict"] == ("ok" if o["us"] <= o["limit_us"] else "over") for o in d
        if o["phase"] == "decode") and
    [(o["matrix_rows"], o["matrix_cols"]) for o in d if o["role"] == "head" and o["flops"]
        and o["phase"] == "decode"] == [(4096, 256)]' bench --ops -p 17 -d 5
# What is kept is an object of the result schema with the rows that are printed as JSON.
call bench -m "$tiny" --ops -p 0 -o json --save "$work/ops" --no-tune
same 'bench --ops --save: exit status' "$status" 0
cp "$work/out" "$work/ops.json"
file_json 'bench --ops --save: the file' "$(find "$work/ops" -name 'kernels_llama-bias_20*Z.json')" \
    '[k for k in d if k != "invalidReason"] == ["schemaVersion", "timestamp", "suite", "valid",
        "env", "model", "metrics", "rows"] and d["suite"] == "kernels" and
    d["env"]["tuned"] == 0 and d["env"]["gpu"]["device"] != "" and
    d["model"]["modelId"] == "llama-bias" and all(v > 0 for v in d["metrics"].values()) and
    d["rows"] == json.load(open("'"$work/ops.json"'")) and len(d["rows"]) > 5'
call bench -m "$tiny" --ops -p 0 --save "$work/ops.json"
same 'bench --ops --save: no folder' "$status, $(grep -c 'GB/s' "$work/out")" '6, 0'

# Ctrl-C: the passes that were finished are there, also the one it came into.
ops_interrupted() { # name, what is waited for on standard output, arguments
    name="bench --ops, interrupted in $1"
    awaited=$2
    shift 2
    "$program" bench --ops "$@" >"$work/out" 2>"$work/err" &
    pid=$!
    for _ in $(seq 600); do
        ! grep -q "$awaited" "$work/out" || break
        sleep 0.1
    done
    kill -INT $pid
    wait $pid
    same "$name: exit status" $? 130
    same "$name: sentence" "$(cat "$work/err")" 'doppler: interrupted'
    grep -q "$awaited" "$work/out"
    same "$name: what was finished" $? 0
}
ops_interrupted 'the second pass' '^| all | 1 row at' -p 256,255
same 'bench --ops, interrupted: no further pass' "$(grep -c '| 255 rows' "$work/out")" 0
ops_interrupted 'the last pass' '^| phase ' -n 0 -p 256
