# shellcheck shell=sh
# tune and what it keeps: read by tests/cli/run, whose functions and variables it uses. Which shape
# is the fastest is the device's business: no time is asserted. Needs a GPU, and profile.sh before it
# for file_json.

cache=$work/tuning
tuned() { # arguments of the program, with a cache of its own
    XDG_CACHE_HOME=$cache call "$@"
}
kept() { # the file of choices; nothing if there is none
    find "$cache" -name 'tuning-*' 2>/dev/null
}

fails 2 '^doppler: .*: no product to tune begins with "conv"' tune conv
same 'tune: nothing found, nothing kept' "$(kept)" ''

product='project bf16 f32 512x256 1'
tuned tune "$product" --json
same 'tune --json: exit status' "$status" 0
cp "$work/out" "$work/tuned.json"
file_json 'tune --json: shapes' "$work/tuned.json" \
    'len(d) > 1 and [r["initial"] for r in d] == [True] + [False] * (len(d) - 1) and
    all(r["right"] and r["us"] > 0 and r["calls"] == 8 and r["pass"] == "a token" and
        r["product"] == "'"$product"'" for r in d) and sum(r["chosen"] for r in d) == 1 and
    len({r["shape"] for r in d}) == len(d)'
same 'tune: one file is kept' "$(kept | grep -c '/doppler/tuning-[0-9a-f]*\.json$')" 1
file=$(kept)
file_json 'tune: what is kept' "$file" \
    'd["format"] == 1 and d["choices"] == {r["product"]: r["shape"]
        for r in json.load(open("'"$work/tuned.json"'")) if r["chosen"]}'
# Tuned again it may choose another shape, of which the file alone tells.
tuned tune "$product"
same 'tune: says where' "$(tail -n 1 "$work/out")" "kept in $(dirname "$(kept)")"
same 'tune: one file is kept again' "$(kept)" "$file"

# It is taken unless it is not wanted; what another shape computes prints the same tale.
# run LABEL, pattern that the log has or, after !, has not; the other arguments
logs() {
    name=$1
    pattern=$2
    shift 2
    tuned run -p 'Once upon' -n 8 --temp 0 --log "$@"
    found=no
    grep -q -e "${pattern#!}" "$work/err" && found=yes
    same "tune: $name: exit status" "$status" 0
    same "tune: $name" "$found" "$([ "$pattern" = "${pattern#!}" ] && echo yes || echo no)"
    same "tune: $name: the tale" "$(cat "$work/out")" "$tale"
}
# Of a measurement the file says it.
for option in '' --no-tune '--no-tune --no-int8' '--no-tune --checks'; do
    # shellcheck disable=SC2086 # its words
    tuned bench -p 1 -n 0 -r 1 --no-warmup -o json $option
    cp "$work/out" "$work/measured.json"
    file_json "bench $option: the settings" "$work/measured.json" \
        'd[0]["int8"] == (d[0]["f16"] and "int8" not in "'"$option"'") and
        d[0]["checks"] == ("checks" in "'"$option"'") and
        (d[0]["tuned"] == 0) == ("no-tune" in "'"$option"'")'
done
call run -p 'Once upon' -n 8 --temp 0 --no-tune
tale=$(cat "$work/out")
logs 'choices are read' "debug: $file: [0-9]* tuned shapes"
logs '--no-tune' '!tuned shapes' --no-tune
cp "$file" "$work/whole.json"
head -c 40 "$work/whole.json" >"$file"
logs 'a cut file' "warning: $file: is not used"
sed 's/"device":"/&Another /' "$work/whole.json" >"$file"
logs 'a foreign file' "warning: $file: is not used: \"device\" is not this one"
sed 's/"rows [^"]*"/"rows 99999, split 0"/' "$work/whole.json" >"$file"
logs 'a shape that is not offered' "debug: $file: [0-9]* tuned shapes"

# Two switches of the device are two devices: their files lie side by side.
tuned tune "$product" --no-subgroups
same 'tune --no-subgroups: a file of its own' "$(kept | grep -c 'tuning-')" 2
grep -q 'chosen' "$work/out"
same 'tune: a table' $? 0
# What cannot be kept is an error of tune.
rm -r "$cache/doppler"
: >"$cache/doppler"
XDG_CACHE_HOME=$cache fails 6 "^doppler: $cache/doppler: cannot be made" tune "$product"
