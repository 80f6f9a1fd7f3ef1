# shellcheck shell=sh
# bench with its other commands: read by tests/cli/run, whose functions and variables it uses. $gpu
# is empty where there is none. Times are never asserted, only what is counted.

results=$work/results
mkdir -p "$results"
# A file of one llama-bench row: name, commit, depth, samples; then device and model if not the
# usual ones.
row() {
    printf '[{"build_commit":"%s","gpu_info":"%s","backends":"vulkan","model_type":"%s",
        "model_size":%s,"n_prompt":0,"n_gen":128,"n_depth":%s,"avg_ts":1,"samples_ts":[%s]}]\n' \
        "$2" "${5:-card}" "${6:-llama q4_k}" "${7:-1000}" "$3" "$4" >"$results/$1.json"
}

# --- Options, before any GPU is asked for -------------------------------------------------------

fails 2 '"xml" is none of md, csv, json, jsonl, sql' bench -o xml
fails 2 '^doppler: bench: "x" is no option, nor compare or plot' bench x
fails 2 '^doppler: -pg: "8" is not PROMPT,GENERATED' bench -pg 8
fails 2 '^doppler: -pg: "8,99999999" is not' bench -pg 8,99999999
fails 2 '^doppler: -p: "5-2" ends before it begins' bench -p 5-2
fails 2 '^doppler: -p: "0-8.2": no factor leads on from 0' bench -p '0-8*2'
fails 2 '^doppler: -p: "1-9+0": the step behind + is a whole number from 1' bench -p 1-9+0
fails 2 '^doppler: -p: "1-9.1": the step behind . is a whole number from 2' bench -p '1-9*1'
fails 2 '^doppler: -p: "x" is not a number' bench -p 1-x
fails 2 '^doppler: -p: "1-999" makes more than 64 numbers' bench -p 1-999
fails 2 '^doppler: -p: -4 is below 0' bench -p -4
fails 2 'make more than 1024 tests' bench -p 1-64 -n 1-64 -d 0-16
fails 2 '^doppler: --parallel: 0 is below 1' bench --parallel 0
fails 2 '^doppler: --parallel: not with --ops' bench --ops --parallel 2
fails 2 '^doppler: --parallel: not with --schema' bench --schema doppler --parallel 2
fails 2 '^doppler: --parallel: not with --against' bench --against x --parallel 2
fails 2 '^doppler: --parallel: 17 is above 16' bench --parallel 17
fails 2 'the longest test takes 2560 tokens' bench -p 0 -n 127,128 --parallel 16
fails 2 'the longest test takes 2049 tokens' bench -p 0 -n 0 -pg 2000,48
fails 2 '^doppler: --schema: "x" is not doppler' bench --schema x
fails 2 'there is no prompt "tiny"' bench --schema doppler --prompt-name tiny
fails 2 'there is no prompt "../xs"' bench --schema doppler --prompt-name ../xs
fails 2 '^doppler: -n: --schema takes one number above 0' bench --schema doppler -n 1,2
fails 2 '^doppler: -p, -pg and -d: --schema has prompts' bench --schema doppler -p 3
fails 2 '^doppler: --schema and --against' bench --schema doppler --against x
# What would have no effect is refused: an hour of measuring would go by before it is missed.
for option in --prompt-name=xs --cold --warmup-prefill=1 --warmup-decode=1; do
    fails 2 "^doppler: ${option%=*}: only with --schema$" bench "$option"
done
for option in --rounds=2 --time-limit=9; do
    fails 2 "^doppler: ${option%=*}: only with --against$" bench "$option"
done
for option in --threshold=3 --different; do
    fails 2 "^doppler: ${option%=*}: only with compare$" bench "$option"
    fails 2 "^doppler: ${option%=*}: only with compare$" bench plot a "$option"
done
fails 2 '^doppler: --cold: only with --schema$' bench compare a b --cold
for option in --schema=doppler --against=x -pg=1,1 --trace=x --profile-out=x; do
    fails 2 "^doppler: ${option%=*}: not with --ops$" bench --ops "$option"
done
fails 2 '^doppler: --trace: not with --schema$' bench --schema doppler --trace x
fails 2 '^doppler: --profile-out: not with --against$' bench --against x --profile-out x
fails 2 '^doppler: --profile: not with --against$' bench --against x --profile
fails 2 '^doppler: --profile: not with --schema$' bench --schema doppler --profile
fails 2 '^doppler: --profile: not with --ops$' bench --ops --profile
for option in --ops --schema=doppler --against=x --save=x -pg=1,1 --trace=x --profile; do
    fails 2 "^doppler: ${option%=*}: not with compare$" bench compare a b "$option"
    fails 2 "^doppler: ${option%=*}: not with plot$" bench plot a -o b "$option"
done
fails 2 'the longest test takes 2[0-9]* tokens, the context holds 2048' \
    bench --schema doppler --prompt-name long -n 900
# What the result schema says of their lengths, by the bundled model's tokenizer.
for prompt in xs:6:10 short:16:64 medium:256:512 long:1700:2048; do
    name=${prompt%%:*}
    range=${prompt#*:}
    json "${range%:*} <= len(d) <= ${range#*:}" tokenize -p "$(cat "bench/prompts/$name.txt")"
done

# --- compare ------------------------------------------------------------------------------------

row a old 0 100,101,102,103,104
row slower new 0 90,91,92,93,94
row equal new 0 100.5,101.5,102.5,103.5,104.5
row few new 0 50,51,52
row few_a old 0 90,91,92
row one old 4096 7
row tied_a old 0 10,11,11,12
row tied_b new 0 11,12,13,13,14
row many_a old 0 "$(seq -s, 100 124)"
row many_b new 0 "$(seq -s, 107 131)"
row card2 new 0 1 'other card'
row model2 new 0 1 card 'llama q8_0'
call bench compare "$results/a.json" "$results/slower.json"
same 'compare: slower is exit status 1' "$status" 1
grep -q '^| tg128 | 102.00 | 92.00 | t/s | 0.902 | 5, 5 | 0.008 | worse |' "$work/out"
same 'compare: slower, the table' $? 0
grep -q '^B is worse ' "$work/out"
same 'compare: slower, the verdict' $? 0
prints '^B is better' bench compare "$results/slower.json" "$results/a.json"
prints '^B is same' bench compare "$results/a.json" "$results/a.json"
prints '| same |' bench compare "$results/a.json" "$results/slower.json" --threshold 11
prints '| same |' bench --threshold=11 compare "$results/a.json" "$results/slower.json"
prints '^B is not judged: too few runs' bench compare "$results/few.json" "$results/few_a.json"
# The chances by enumeration of all subsets: 2/252, 174/252 and, with ties, 11/126; the last by the
# normal approximation with both corrections.
while read -r one two chance verdict; do
    call bench compare "$results/$one.json" "$results/$two.json" --json
    reason=$(python3 -c 'import json, sys
t = json.load(open(sys.argv[1]))["tests"][0]
if abs(t["p"] - eval(sys.argv[2])) > 1e-12 or t["verdict"] != sys.argv[3]: print(t)' \
        "$work/out" "$chance" "$verdict" 2>&1 | tail -n 1)
    [ -n "$python" ] && result "compare: chance of $one and $two" "$reason"
done <<'CASES'
slower a 2/252 better
a equal 174/252 same
tied_a tied_b 11/126 noise
many_a many_b 0.0035948366551191518 better
CASES
for pair in 'card2:the devices differ: "card, vulkan" and "other card, vulkan"' \
    'model2:the models differ: "llama q4_k" and "llama q8_0"' 'one:the tests differ: only A has'; do
    fails 2 "${pair#*:}" bench compare "$results/a.json" "$results/${pair%%:*}.json"
done
# Settings that both files say; how much was tuned, and what only one of them says, is no matter.
set_row() { # name, settings as JSON
    sed "s/\"n_gen\"/$2,&/" "$results/a.json" >"$results/$1.json"
}
set_row plain '"tuned":0,"int8":true,"checks":false'
set_row some '"tuned":7,"int8":true,"checks":false'
set_row more '"tuned":90,"int8":true,"checks":false'
set_row floats '"tuned":0,"int8":false,"checks":false'
set_row checked '"tuned":0,"int8":true,"checks":true'
for pair in 'some:A is untuned, B is tuned' 'floats:A is with int8, B is without int8' \
    'checked:A is without checks, B is with checks'; do
    other=$results/${pair%%:*}.json
    fails 2 "the settings differ: ${pair#*:}; see --different" \
        bench compare "$results/plain.json" "$other"
    prints '^B is same' bench compare "$results/plain.json" "$other" --different
    prints '^B is same' bench compare "$results/a.json" "$other"
done
prints '^B is same' bench compare "$results/some.json" "$results/more.json"
printf 'n_prompt,n_gen,avg_ts,int8,tuned\n0,128,102.5,1,0\n' >"$results/plain.csv"
printf 'n_prompt,n_gen,avg_ts,int8,tuned\n0,128,102.5,0,\n' >"$results/floats.csv"
fails 2 'A is with int8, B is without int8' \
    bench compare "$results/plain.csv" "$results/floats.csv"
prints '| too few runs |' bench compare "$results/a.json" "$results/card2.json" --different
fails 2 'no test in common' bench compare "$results/a.json" "$results/one.json" --different
cat "$results/a.json" "$results/card2.json" | tr -d '[]\n ' |
    sed 's/}{/}\n{/; s/"samples_ts":/&[/g; s/}/]}/g' >"$results/mixed.jsonl"
fails 2 'has results of more than one model, device, version or setting' \
    bench compare "$results/mixed.jsonl" "$results/a.json"
fails 2 'bench compare: 1 file given, needs two' bench compare "$results/a.json"
fails 6 'nosuch' bench compare "$results/a.json" "$results/nosuch.json"
fails 2 '"csv" is none of md, json' bench compare "$results/a.json" "$results/a.json" -o csv

# The same results in every form that is read.
columns=build_commit,gpu_info,backends,model_type,model_size,n_prompt,n_gen,n_depth,avg_ts
printf 'noise in front\n%s\n' "$columns
\"old\",\"card\",\"vulkan\",\"llama \"\"q4_k\"\"\",\"1000\",\"0\",\"128\",\"0\",\"102.5\"" \
    >"$results/a.csv"
printf '| model | backend | test | t/s |\n| --- | --- | ---: | ---: |\n%s\n\nbuild: x\n' \
    '| llama | vulkan | pp 8+tg128 @ d16 | 102.50 ± 0.50 |' >"$results/a.md"
printf 'log\n{"n_prompt":0,"n_gen":128,"avg_ts":102.5}\nlog\n{"n_prompt":4,"n_gen":0,"avg_ts":3}\n' \
    >"$results/a.jsonl"
for form in 'csv:tg128 | 102.50' 'md:pp8+tg128 @ d16 | 102.50' 'jsonl:pp4 | 3.00'; do
    prints "^| ${form#*:} | " bench compare "$results/a.${form%%:*}" "$results/a.${form%%:*}"
done

# What is wrong in a file is named.
bad() { # pattern, content
    printf '%s' "$2" >"$results/bad.json"
    fails 3 "$1" bench compare "$results/bad.json" "$results/a.json"
}
bad 'no results in the form of' ''
bad 'no results in the form of' 'hello'
bad 'holds no results' '[]'
bad 'SQL is not read' 'CREATE TABLE IF NOT EXISTS doppler_bench ('
bad 'bad.json: result 1: expected an object' '[3]'
bad 'n_prompt: expected a whole number' '[{"n_gen":1,"avg_ts":1}]'
bad 'n_gen: expected a whole number' '[{"n_prompt":1,"n_gen":-1,"avg_ts":1}]'
bad 'are both 0' '[{"n_prompt":0,"n_gen":0,"avg_ts":1}]'
bad 'avg_ts: 0, expected a number from' '[{"n_prompt":1,"n_gen":0}]'
bad 'avg_ts: expected a number$' '[{"n_prompt":1,"n_gen":0,"avg_ts":"1"}]'
bad 'result 2: samples_ts: -1, expected a number from' \
    '[{"n_prompt":1,"n_gen":0,"avg_ts":1},{"n_prompt":1,"n_gen":0,"samples_ts":[-1]}]'
bad 'samples_ts: nan, expected' '[{"n_prompt":1,"n_gen":0,"samples_ts":["1"]}]'
bad 'samples_ts: expected an array' '[{"n_prompt":1,"n_gen":0,"samples_ts":{}}]'
bad 'samples_ts: 1e+300, expected' '[{"n_prompt":1,"n_gen":0,"samples_ts":[1e300]}]'
bad 'model_type: expected a text' '[{"model_type":1,"n_prompt":1,"n_gen":0,"avg_ts":1}]'
bad 'int8: expected true, false or a whole number' '[{"n_prompt":1,"n_gen":0,"int8":"1"}]'
bad 'tuned: "x" is not its number' 'n_prompt,n_gen,avg_ts,tuned
1,0,1,x'
bad 'bad.json: is a comparison with another engine (bench --against)' '{"comparison":[]}'
bad 'bad.json: result 1: has times of kernels (bench --ops)' '[{"kernel":"norm","us":1}]'
bad 'schemaVersion 2, expected 1' '{"schemaVersion":2}'
bad 'promptTokens: expected a whole number' '{"schemaVersion":1,"workload":[]}'
bad 'line 1: no columns "test" and "t/s"' '| a | b |'
bad 'line 2: "| xx | 3 |" is no row' "| test | t/s |
| xx | 3 |"
bad 'line 2: 1 cells, expected 3' 'n_prompt,n_gen,avg_ts
1'
bad 'n_gen: "x" is not its number' 'n_prompt,n_gen,avg_ts
1,x,3'
printf '[{"n_prompt":2000000000,"n_gen":0,"avg_ts":1}]' >"$results/bad.json"
fails 1 'a test of more than 1073741824 tokens' \
    bench compare "$results/bad.json" "$results/a.json"
{
    printf '[{"n_prompt":1,"n_gen":0,"avg_ts":1}'
    seq -s '' -f ',{"n_prompt":1,"n_gen":%.0f,"avg_ts":1}' 1 1024
    printf ']'
} >"$results/bad.json"
fails 1 'more than 1024 results' bench compare "$results/bad.json" "$results/a.json"
# A name may not move the reader's cursor or break the table.
printf '[{"model_type":"a\\u001b[2J|b","gpu_info":"c","n_prompt":1,"n_gen":0,"avg_ts":1}]' \
    >"$results/escape.json"
fails 2 'differ: "a \[2J b" and' bench compare "$results/escape.json" "$results/a.json"

# --- plot ---------------------------------------------------------------------------------------

row deep old 4096 90,91
row tall new 0 '5,<6' # no number
row markup old 0 100 'a<b>&\"c\"'
json 'd["file"].endswith("a.svg")' bench plot "$results/a.json" "$results/deep.json" \
    "$results/markup.json" -o "$results/a.svg"
if [ -n "$python" ]; then
    reason=$(python3 -c 'import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
ns = "{http://www.w3.org/2000/svg}"
lines = [p.get("points").split() for p in root.iter(ns + "polyline")]
texts = ["".join(t.itertext()) for t in root.iter(ns + "text")]
w, h = [float(x) for x in root.get("viewBox").split()[2:]]
for p in (q for l in lines for q in l):
    x, y = map(float, p.split(","))
    if not (0 <= x <= w and 0 <= y <= h): print("outside:", p)
# two series, each with its mark in the legend; the first has two depths, the deeper one lower
if sorted(map(len, lines)) != [1, 2, 2, 2]: print("points:", lines)
first = next(l for l in lines if len(l) == 2)
(x0, y0), (x1, y1) = [map(float, p.split(",")) for p in first]
if not (x0 < x1 and y0 < y1): print("not falling:", first)
for t in ("Decode", "4,096", "tokens per second", "depth of the context, tokens",
          "tg128, a<b>&\"c\", vulkan"):
    if t not in texts: print("no text", t, texts)
if "Prefill" in texts: print("an empty panel")' "$results/a.svg" 2>&1 | tail -n 1)
    result 'plot: the picture' "$reason"
fi
cp "$results/a.svg" "$results/b.svg"
call bench plot "$results/a.json" "$results/deep.json" "$results/markup.json" -o "$results/a.svg"
row large old 0 300 card 'llama q4_k' 2000
call bench plot "$results/a.json" "$results/large.json" -o "$results/c.svg"
same 'plot: models of one kind and two sizes' \
    "$(grep -o 'tg128, [0-9.]* [a-zA-Z]*' "$results/c.svg" | LC_ALL=C sort -u)" \
    "$(printf 'tg128, 1.95 KiB\ntg128, 1000 bytes')"
call bench plot "$results/plain.json" "$results/some.json" "$results/a.json" -o "$results/c.svg"
same 'plot: tuned and untuned' "$(grep -o 'class="l">tg128[^<]*' "$results/c.svg" | cut -c 11-)" \
    "$(printf 'tg128, untuned\ntg128, tuned\ntg128')"
same 'plot: the same bytes again' "$(cmp "$results/a.svg" "$results/b.svg" 2>&1)" ''
fails 2 'no file of results given' bench plot -o "$results/x.svg"
fails 2 '-o FILE.svg says where' bench plot "$results/a.json"
fails 2 'no test of decoding or prefill alone' bench plot "$results/a.md" -o "$results/x.svg"
fails 3 'tall.json: result: line 2' bench plot "$results/tall.json" -o "$results/x.svg"
fails 6 'nosuch' bench plot "$results/a.json" -o "$results/nosuch/x.svg"
fails 6 'is not a regular file' bench plot "$results/a.json" -o "$results"
{
    printf '['
    seq -s , -f '{"n_prompt":0,"n_gen":%.0f,"avg_ts":1}' 1 9
    printf ']'
} >"$results/many.json"
fails 1 'more than 8 series.* is one more; give fewer files' bench plot "$results/many.json" -o "$results/x.svg"
printf '{"schemaVersion":1,"suite":"kernels","rows":[]}' >"$results/kernels.json"
for file in "$results/kernels.json" "$(find bench/results -name 'against_*' | head -n 1)"; do
    fails 3 "$file: .* (bench --[a-z]*), expected results of tests" \
        bench plot "$results/a.json" "$file" -o "$results/x.svg"
done
# The picture of docs/speed.md is what the command there makes of the results that are kept.
plot=$(sed -n 's|^build/doppler \(bench plot .*\) -o docs/speed.svg$|\1|p' docs/speed.md)
# shellcheck disable=SC2086 # its words, and what its pattern stands for
call $plot -o "$results/speed.svg"
same 'plot: the command in docs/speed.md' "$status, $(cmp "$results/speed.svg" docs/speed.svg 2>&1)" \
    '0, '
same 'plot: nothing is left of a failure' "$(find "$results" -name 'x.svg*')" ''

# --- With a GPU ---------------------------------------------------------------------------------

if [ -n "$gpu" ]; then
    # Ranges, repeated options, pairs and depths make the tests in llama-bench's order; what is
    # printed can be read again.
    call bench -m "$tiny" -p 1 -n 1 -n 2 -pg 1,1 -d 0-1 --parallel 1,3 -r 2 --no-warmup --gpu-time \
        --no-tune -o json --save "$results/kept"
    same 'bench -o json: exit status' "$status" 0
    cp "$work/out" "$results/run.json"
    if [ -n "$python" ]; then
        reason=$(python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
want = ["pp1", "tg1", "tg1 x3", "tg2", "tg2 x3", "pp1+tg1"]
want += [t + " @ d1" for t in want]
if [r["test"] for r in d] != want: print([r["test"] for r in d])
for r in d:
    n, one = (r["n_prompt"] + r["n_gen"]) * r["n_parallel"], r["n_parallel"] == 1
    if one == ("x" in r["test"]): print(r["test"], r["n_parallel"])
    if len(r["samples_ns"]) != 2: print("samples", r["samples_ns"])
    if any(abs(ts * ns / 1e9 / n - 1) > 1e-6 for ts, ns in zip(r["samples_ts"], r["samples_ns"])):
        print("samples_ts", r)
    if one != (r["ttft_ms"] is not None): print("ttft_ms", r)
    if one and not (0 < r["ttft_ms"] <= r["avg_ns"] / 1e6 * 1.001): print("ttft_ms", r)
    if (r["itl_ms_p50"] is None) != (r["n_gen"] < 2 or not one): print("itl", r)
    if r["n_gen"] > 1 and one and not r["itl_ms_p50"] <= r["itl_ms_p90"] <= r["itl_ms_p99"]: print("itl", r)
    if not (r["cpu_ms_per_token"] > 0 and r["host_bytes_peak"] > 1e6): print("cpu", r)
    if not (r["model_size"] == 81344 and r["f16"] in (True, False) and r["driver"]): print(r)
    if (r["tuned"], r["checks"]) != (0, False) or r["int8"] != r["f16"] or r["matrix"] < 0: print(r)
    if r["gpu_ms"] is not None and not 0 < r["gpu_ms"] <= r["avg_ns"] / 1e6: print("gpu_ms", r)
    if r["test_time"][10] != "T": print(r["test_time"])' "$results/run.json" 2>&1 | tail -n 1)
        result 'bench -o json: the rows' "$reason"
    fi
    kept=$(find "$results/kept" -name 'bench_llama-bias_20*Z.json')
    same 'bench --save: what is printed' "$(cmp "$results/run.json" "$kept" 2>&1)" ''
    call bench compare "$results/run.json" "$kept"
    same 'bench compare: a run with itself' "$(tail -n 1 "$work/out" | cut -c 1-9)" 'B is same'
    # Sessions in parallel stay apart from one in every form that is read; the profile is one's.
    for format in csv md jsonl; do
        call bench -m "$tiny" -p 0 -n 2 --parallel 1,3 -r 1 --no-warmup -o "$format"
        cp "$work/out" "$results/parallel.$format"
    done
    for format in csv md jsonl; do
        call bench compare "$results/parallel.$format" "$results/parallel.jsonl"
        same "bench --parallel: $format" \
            "$(grep -o '^| tg2[^|]*|' "$work/out" | tr -d '\n')" '| tg2 || tg2 x3 |'
    done
    call bench -m "$tiny" -p 100 -n 2 --parallel 3 -r 1 --no-warmup --profile
    same 'bench --parallel --profile' "$status" 0
    fails 6 'nosuch' bench -m "$tiny" -p 2 -n 0 -r 1 --save "$results/nosuch/deeper"
    call bench -m "$tiny" -p 1 -n 0 -r 1 --no-warmup -o sql
    if [ -n "$python" ]; then
        reason=$(python3 -c 'import sqlite3, sys
c = sqlite3.connect(":memory:")
c.executescript(open(sys.argv[1]).read())
row = c.execute("SELECT n_prompt, avg_ts > 0, itl_ms_p50, gpu_info FROM doppler_bench").fetchall()
if len(row) != 1 or row[0][:3] != (1, 1, None): print(row)' "$work/out" 2>&1 | tail -n 1)
        result 'bench -o sql: a database takes it' "$reason"
    fi

    # The schema: warm with counted runs, cold with a load for each run.
    call bench -m "$tiny" --schema doppler --prompt-name xs,xs -n 2 -r 2 --warmup-prefill 0 \
        --no-tune --save "$results/kept"
    same 'bench --schema: exit status' "$status" 0
    cp "$work/out" "$results/schema.jsonl"
    MESA_SHADER_CACHE_DISABLE=false "$program" bench -m "$tiny" --schema doppler \
        --prompt-name xs -n 1 -r 2 --no-tune --cold >"$results/cold.json" 2>"$work/err"
    same 'bench --cold: exit status' $? 0
    if [ -n "$python" ]; then
        reason=$(python3 -c 'import json, sys
warm = [json.loads(l) for l in open(sys.argv[1])]
cold = json.load(open(sys.argv[2]))
if [d["workload"]["promptName"] for d in warm] != ["xs", "xs"]: print("prompts")
if warm[0]["workload"]["promptTokens"] != 20: print(warm[0]["workload"])
for d in warm + [cold]:
    m, w = d["metrics"], d["workload"]
    if d["schemaVersion"] != 1 or d["suite"] != "pipeline": print("head")
    if d["valid"] != (d["env"]["gpu"]["type"] != "cpu"): print("valid")
    env = d["env"]
    if (env["tuned"], env["checks"], env["int8"]) != (0, False, env["webgpu"]["hasF16"]): print(env)
    if len(d["raw"]["runs"]) != w["timedRuns"] or w["timedRuns"] != 2: print("runs")
    if d["model"]["modelId"] != "llama-bias" or d["model"]["tensorCount"] != 35: print(d["model"])
    for tokens, ms, speed in ((w["promptTokens"], "prefill_ms", "prefill_tokens_per_sec"),
                              (w["maxNewTokens"], "decode_ms_total", "decode_tokens_per_sec")):
        if abs(tokens / (m[ms] / 1e3) / m[speed] - 1) > 1e-9: print(ms, m)
        mid = sum(r[ms] for r in d["raw"]["runs"]) / 2
        if abs(m[ms] / mid - 1) > 1e-9: print("median of", ms)
    # tokens of one submit share its time
    if abs(m["decode_ms_per_token_p50"] * w["maxNewTokens"] / m["decode_ms_total"] - 1) > 0.6:
        print("per token", m)
    if m["gpu_submit_count_decode"] < 1 or m["gpu_readback_bytes_total"] < 4: print(m)
    if m["kv_cache_dtype"] not in ("f16", "f32"): print(m)
loads = {r["load_ms"] for r in cold["raw"]["runs"]}
if cold["runType"] != "cold" or len(loads) != 2: print("cold", loads)
if warm[0]["runType"] != "warm" or len({r["load_ms"] for r in warm[0]["raw"]["runs"]}) != 1:
    print("warm")' "$results/schema.jsonl" "$results/cold.json" 2>&1 | tail -n 1)
        result 'bench --schema: the objects' "$reason"
    fi
    same 'bench --schema --save: files' \
        "$(find "$results/kept" -name 'pipeline_llama-bias_20*Z.json' | grep -c '')" 2
    prints '| xs: ttft_ms | .* | ms | 1.000 |' \
        bench compare "$results/schema.jsonl" "$results/schema.jsonl"

    # Against another engine: a script that notes what it was called with. The path is one that a
    # shell would take apart.
    odd="$results/it's \$(touch ran)"
    ln -s "$PWD/$tiny" "$odd"
    cat >"$results/other" <<'OTHER'
#!/bin/sh
echo "$*" >>"$OTHER_LOG"
echo 'ggml: a line that is no result'
for ts in 100 110; do
    echo "{\"build_commit\":\"b1\",\"gpu_info\":\"G\",\"n_prompt\":2,\"n_gen\":0,\"avg_ts\":$ts}"
done
OTHER
    chmod +x "$results/other"
    export OTHER_LOG="$results/other.log"
    call bench -m "$odd" -p 2 -n 0 -pg 1,1 -r 1 --rounds 2 --no-warmup --no-tune \
        --save "$results/kept" --against "'$results/other' -m {model} {tests}"
    same 'bench --against: exit status' "$status" 0
    tests="-m $odd -o json -r 1 -p 2 -n 0 -d 0 -pg 1,1"
    same 'bench --against: what the command gets' "$(cat "$OTHER_LOG")" "$tests
$tests"
    same 'bench --against: a path is no command' "$(find . -maxdepth 1 -name ran)" ''
    grep -q '^| pp2 | .* ± .* | 105.00 ± 5.77 | [0-9]*[.][0-9]* | 2, 4 | ' "$work/out"
    same 'bench --against: the table' $? 0
    grep -q '^| pp1+tg1 | .* | - | - | 2, 0 | - |' "$work/out"
    same 'bench --against: a test that only we have' $? 0
    if [ -n "$python" ]; then
        reason=$(python3 -c 'import json, sys
file = json.load(open(sys.argv[1]))
d = file["comparison"]
if [c["test"] for c in d] != ["pp2"]: print(d)
c = d[0]
head = ["schemaVersion", "timestamp", "suite", "valid", "env", "model", "comparison"]
if [k for k in file if k != "invalidReason"] != head or file["suite"] != "against": print(list(file))
pipeline = json.loads(open(sys.argv[2]).readline())
if file["env"] != pipeline["env"] or not file["env"]["gpu"]["device"]: print(file["env"])
if file["model"] | {"modelId": "llama-bias"} != pipeline["model"]: print(file["model"])
if file["schemaVersion"] != 1 or file["timestamp"][10] != "T": print(file["timestamp"])
ours, theirs = c["dopplerResult"], c["competitorResult"]
if theirs["runs"] != 4 or theirs["tokens_per_sec"] != 105 or ours["runs"] != 2: print(c)
if abs(ours["tokens_per_sec"] / 105 / c["ratio"] - 1) > 1e-9: print(c)
if c["competitorVersion"] != "b1" or theirs["hardware"] != "G": print(c)' \
            "$(find "$results/kept" -name 'against_*.json')" "$results/schema.jsonl" 2>&1 |
            tail -n 1)
        result 'bench --against: the comparison' "$reason"
    fi
    against() { # exit code, pattern, command
        fails "$1" "$2" bench -m "$tiny" -p 2 -n 0 -r 1 --rounds 1 --time-limit 1 --against "$3"
    }
    against 1 'the command ended with status 7: it broke$' 'echo it broke >&2; exit 7'
    against 1 'the command ended with signal 9' 'kill -9 $$'
    against 1 'ran longer than 1 s and was stopped; see --time-limit' 'sleep 100'
    against 3 'what the command printed: no results' 'echo hello'
    against 2 'measured "tg4" and none of our tests' \
        'echo "{\"n_prompt\":0,\"n_gen\":4,\"avg_ts\":1}"'
    # Ctrl-C ends the command too.
    "$program" bench -m "$tiny" -p 2 -n 0 -r 1 --against "echo \$\$ >'$results/pid'; sleep 100" \
        >"$work/out" 2>"$work/err" &
    ours=$!
    tries=0
    while [ ! -s "$results/pid" ] && [ $tries -lt 600 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -INT "$ours"
    wait "$ours"
    same 'bench --against, interrupted: exit status' $? 130
    kill -0 "$(cat "$results/pid")" 2>/dev/null
    same 'bench --against, interrupted: the command is gone' $? 1
fi
