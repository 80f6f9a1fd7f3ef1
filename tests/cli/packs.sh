# shellcheck shell=sh
# Converting, verifying and running packs, as a user does: read by tests/cli/run, whose functions
# and variables it uses.

pack=$work/tale-q8
fails 2 'convert: 0 paths given, needs two: IN OUT' convert
fails 2 'convert: 1 path given' convert "$model"
fails 2 '^doppler: --quantize: "q9_9" is no quantisation; there are f32, f16, bf16, q8_0' \
    convert "$model" "$pack" --quantize q9_9
fails 2 '^doppler: --role: "nose=q8_0" .* roles are embedding, head' \
    convert "$model" "$pack" --role nose=q8_0
fails 2 '^doppler: --role: "ffn=q9": "q9" is no format' convert "$model" "$pack" --role ffn=q9
fails 2 '^doppler: --format: "onnx" is no container' convert "$model" "$pack" --format onnx
fails 2 '^doppler: --q4k-layout: "diag" is no layout' convert "$model" "$pack" --q4k-layout diag
fails 2 '^doppler: --q4k-layout: "flat": only packs' convert "$model" "$pack.gguf" --q4k-layout flat
fails 2 '^doppler: --shard-size: 1000 is below 1024' convert "$model" "$pack" --shard-size 1000
fails 2 'only packs have that' convert "$model" "$pack.gguf" --fuse-gate-up
fails 2 'is the source' convert "$model" "$model"
fails 6 'no such file or folder' convert no-such-model "$pack"
for out in pack pack/ pack.gguf; do
    fails 6 "^doppler: $work/no/such/${out%/}: cannot be made: No such" convert "$model" \
        "$work/no/such/$out"
done
echo mine >"$work/mine"
fails 2 'not replaced' convert "$model" "$work/mine" --format rdrr
# A calibration takes minutes, so all else is looked at first: here it would miss its GPU.
calibrating() { # exit code, pattern, output, options
    code=$1
    pattern=$2
    shift 2
    fails "$code" "$pattern" convert "$model" "$@" --calibrate "$model/README.md" \
        --webgpu "$work/nosuch.so"
}
calibrating 4 'nosuch.so' "$pack" --quantize q4_k_m
calibrating 2 '^doppler: --quantize: "q9"' "$pack" --quantize q9
calibrating 2 '^doppler: --role: "nose=q8_0"' "$pack" --role nose=q8_0
calibrating 2 '^doppler: --format: "onnx"' "$pack" --format onnx
calibrating 2 '^doppler: --q4k-layout: flat: --calibrate is for rows' "$pack" --q4k-layout flat
calibrating 2 'only packs have that' "$pack.gguf" --fuse-gate-up
calibrating 2 'not replaced' "$work/mine" --format rdrr
calibrating 6 "^doppler: $work/no/pack: cannot be made" "$work/no/pack"
same 'what was there stays' "$(cat "$work/mine")" mine
json 'd["dry_run"] and d["file_bytes"] > 7e6 and d["memory"]["total"] > d["tensor_bytes"] and
    {f["name"] for f in d["formats"]} == {"Q8_0", "F32"}' \
    convert "$model" "$pack" --quantize q8_0 --dry-run
same 'a dry run leaves nothing' "$(find "$work" -name 'tale-q8*')" ''
size=$("$program" convert "$model" "$pack" --quantize q8_0 --shard-size 3M --dry-run |
    sed -n 's/.* of tensors become \(.*\) in rdrr;.*/\1/p')
prints '^wrote ' convert "$model" "$pack" --quantize q8_0 --shard-size 3M
prints "of tensors become $size in rdrr" convert "$model" "$pack" --quantize q8_0 --shard-size 3M
prints 'right: 74 tensors, .* 3 shards, 3 pieces, 74 tensor roots, ' verify "$pack"
prints '^wrote ' convert tests/vectors/models/llama-bias "$work/small-pack" --threads 1
prints ': 1 shard, 1 piece, [0-9]* tensor roots, 3 other files$' verify "$work/small-pack"
json 'd["ok"] and d["shards"] == 3 and d["merkle_roots"] == 74 and d["container"] == "rdrr"' \
    verify "$pack"
prints 'no hashes of its bytes' verify "$model"
json 'd["container"] == "rdrr" and d["format"].lower() == "q8_0" and d["n_layers"] == 8' \
    inspect "$pack"
same 'a pack and its source have one tokenizer' \
    "$("$program" tokenize -m "$pack" -p 'Once upon a time' --json)" \
    "$("$program" tokenize -m "$model" -p 'Once upon a time' --json)"

# What is wrong on the disk is named, by verify and before anything runs.
damage() { # name, exit status, pattern, command that damages the copy in $bad
    bad=$work/bad
    rm -rf "$bad"
    cp -r "$pack" "$bad"
    (cd "$bad" && eval "$4")
    fails "$2" "$3" verify "$bad"
}
flip() { # file, offset: all bits of one byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\$(printf %o $((255 - byte)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
damage flipped 3 'shard_00001.bin: bytes 0 to [0-9]*: ' 'flip shard_00001.bin 1000'
damage first 3 'shard_00000.bin: bytes 0 to ' 'flip shard_00000.bin 0'
damage truncated 3 'shard_00002.bin' 'truncate -s -1 shard_00002.bin'
damage lengthened 3 'shard_00000.bin' 'printf x >>shard_00000.bin'
damage missing 3 'shard_00001.bin: is missing' 'rm shard_00001.bin'
damage swapped 3 'shard_0000[01].bin' 'mv shard_00000.bin a; mv shard_00001.bin shard_00000.bin
    mv a shard_00001.bin'
damage text 3 'tokenizer.json' 'flip tokenizer.json 100'
damage linked 3 'shard_00000.bin' 'mv shard_00000.bin ../moved; ln -s ../moved shard_00000.bin'

bad=$work/bad
if [ -n "$gpu" ]; then
    rm -rf "$bad"
    cp -r "$pack" "$bad"
    flip "$bad/shard_00000.bin" 77
    fails 3 'shard_00000.bin: bytes 0 to ' run -m "$bad" -p 'Once upon a time' -n 4 --temp 0
    json 'len(d["tokens"]) == 4' run -m "$bad" -p 'Once upon a time' -n 4 --temp 0 --no-verify
    json 'len(d["tokens"]) == 8' run -m "$pack" -p 'Once upon a time' -n 8 --temp 0
fi

if [ -n "$sanitized" ]; then # minutes of quantising; the runner's own tests of it are sanitized
    skip 'killed conversions, full disks' 'sanitized'
    return 0
fi

# Killed in the middle, then called again: the same bytes as in one go.
"$program" convert "$model" "$work/once.gguf" --quantize q6_k --threads 1 >/dev/null 2>&1
"$program" convert "$model" "$work/killed.gguf" --quantize q6_k --threads 1 >/dev/null 2>&1 &
killed=$!
while [ ! -s "$work/killed.gguf.part" ] && kill -0 $killed 2>/dev/null; do sleep 0.02; done
kill -9 $killed 2>/dev/null
wait $killed 2>/dev/null
prints '^wrote ' convert "$model" "$work/killed.gguf" --quantize q6_k --threads 2
cmp "$work/once.gguf" "$work/killed.gguf" >/dev/null 2>&1
same 'killed and called again: the same bytes' $? 0
same 'nothing is left beside it' "$(find "$work" -name '*.part*')" ''

# A full disk: the old output stays, nothing is left of the new one.
if mkdir "$work/small" && mount -t tmpfs -o size=12M tmpfs "$work/small" 2>/dev/null; then
    prints '^wrote ' convert "$model" "$work/small/tale.gguf" --quantize q4_0
    sum=$(sha256sum <"$work/small/tale.gguf")
    fails 6 'bytes' convert "$model" "$work/small/tale.gguf" --quantize f16
    same 'a full disk leaves the old output' "$(sha256sum <"$work/small/tale.gguf")" "$sum"
    fails 6 'bytes' convert "$model" "$work/small/pack" --quantize f16
    same 'a full disk keeps nothing of the new' "$(ls "$work/small")" tale.gguf
    umount "$work/small"
else
    skip 'convert to a full disk' 'no right to mount'
fi
