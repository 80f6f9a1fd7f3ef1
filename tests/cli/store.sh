# shellcheck shell=sh
# Pulling, listing and removing models: read by tests/cli/run, whose functions and variables it
# uses. What servers can do wrong is tests/test_pull.c's; here are the command line, the environment
# and interruption.

no_proxy=127.0.0.1
DOPPLER_MODELS=$work/models
HF_HUB_CACHE=$work/hub
export no_proxy DOPPLER_MODELS HF_HUB_CACHE

fails 2 'pull: needs SOURCE' pull
fails 2 'pull: needs SOURCE' pull a b c
fails 2 '^doppler: --jobs: 17 is above 16' pull x --jobs 17
fails 2 '^doppler: --timeout: 0 is below 1' pull x --timeout 0
fails 2 '"12" is no SHA-256' pull "$model" --sha256 12
fails 2 'a source is an http, https or file URL or a path' pull ftp://127.0.0.1/x
fails 6 'nosuch: no such file or folder, and no URL' pull nosuch
fails 2 '"../x" is no name for a model' pull "$model" ../x
fails 2 'tale-8m: a bundled model has that name' pull "$model"
fails 2 'rm: needs the NAME of one model' rm
fails 6 'none: there is no model folder' rm none
fails 2 '"hello" is no option' ls hello
same 'nothing was made' "$(ls -A "$work/models" 2>/dev/null)" ''

# A folder with sums is pulled like one of a server, and found by its name.
cp -r "$model" "$work/tale"
(cd "$work/tale" && sha256sum ./* >SHA256SUMS)
json 'd["name"] == "tale" and d["container"] == "safetensors" and d["n_files"] == 6 and
    d["n_checked"] == 6 and d["path"].endswith("/models/tale") and d["bytes"] > 14e6 and d["bytes_kept"] == 0' \
    pull "$work/tale"
fails 6 'tale: .* has a model of that name already' pull "$work/tale"
prints '^tale  safetensors, 14.2. MiB in 6 files, 6 checked, in ' \
    pull "file://$work/tale" --force
json '[(m["name"], m["place"], m["format"]) for m in d] ==
    [("tale-8m", "bundled", "bf16"), ("tale", "folder", "bf16")]' ls
prints '^tale  *safetensors bf16  *14.2. MiB  folder$' ls
same 'a pulled model by its name' "$("$program" tokenize -m tale -p 'Once upon a time' --json)" \
    "$("$program" tokenize -p 'Once upon a time' --json)"
printf x | dd of="$work/tale/model.safetensors" bs=1 seek=1000000 conv=notrunc 2>/dev/null
call pull "$work/tale" broken --force
same 'a wrong byte: exit status' "$status" 7
same 'a wrong byte: standard output' "$(cat "$work/out")" ''
same 'a wrong byte: sentence' "$(tail -n 1 "$work/err" |
    grep -c '^doppler: model.safetensors: SHA-256 is .*, SHA256SUMS says .* (fetched 3 times)')" 1
same 'a wrong byte: nothing is there' "$(ls "$work/models")" tale
call rm broken
same 'rm: exit status' "$status" 0
same 'what it left is gone' "$(ls -A "$work/models")" tale
json 'd == {"removed": "tale"}' rm tale
prints '^wrote ' convert tests/vectors/models/llama-bias "$work/one.gguf" --threads 1
prints '^one  gguf, .* in 1 file, 0 checked, in ' pull "$work/one.gguf"
call rm one
same 'an empty model folder' "$(ls -A "$work/models")" ''
fails 6 'tale: no such file or folder, nor a bundled model in .*/models' tokenize -m tale -p x

# Where the folder and the cache are, by the environment.
in_place() { # name, path under $work that is expected, variables
    name=$1
    expected=$work/$2
    shift 2
    reason=
    env -u DOPPLER_MODELS -u XDG_DATA_HOME -u HF_HUB_CACHE -u HF_HOME -u XDG_CACHE_HOME "$@" \
        "$program" inspect -m org/none >"$work/out" 2>"$work/err"
    grep -q "nor in Hugging Face's cache $expected\$" "$work/err" || reason=$(cat "$work/err")
    result "$name" "$reason"
}
in_place 'the cache by HF_HUB_CACHE' a "HF_HUB_CACHE=$work/a" "HF_HOME=$work/b"
in_place 'the cache by HF_HOME' b/hub "HF_HOME=$work/b" "XDG_CACHE_HOME=$work/c"
in_place 'the cache by XDG_CACHE_HOME' c/huggingface/hub "XDG_CACHE_HOME=$work/c" "HOME=$work/d"
in_place 'the cache by HOME' d/.cache/huggingface/hub XDG_CACHE_HOME=relative "HOME=$work/d"
for place in "XDG_DATA_HOME=$work/c c/doppler/models" \
    "HOME=$work/d d/.local/share/doppler/models"; do
    env -u DOPPLER_MODELS -u XDG_DATA_HOME "${place% *}" "$program" pull "$model" tale --json \
        >"$work/out" 2>"$work/err"
    same "the model folder by ${place%%=*}" "$(ls "$work/${place##* }" 2>&1)" tale
done
env -u DOPPLER_MODELS -u XDG_DATA_HOME -u HOME "$program" pull "$model" tale >"$work/out" \
    2>"$work/err"
same 'no model folder: exit status' $? 2

# A snapshot of Hugging Face's cache is opened by the name of its repository.
snapshot=$work/hub/models--org--tale/snapshots/0123456789abcdef0123456789abcdef01234567
mkdir -p "$snapshot" "$work/hub/models--org--tale/refs"
printf 0123456789abcdef0123456789abcdef01234567 >"$work/hub/models--org--tale/refs/main"
ln -s "$PWD/$model"/*.json "$PWD/$model/model.safetensors" "$snapshot"
prints '^\[.*\]$' tokenize -m org/tale -p x --json
prints '^\[.*\]$' tokenize -m org/tale@main -p x --json
fails 6 'org/tale@v2: .* has no such revision' tokenize -m org/tale@v2 -p x
prints '^org/tale .* hf cache$' ls
fails 2 "neither paths nor models of Hugging Face's cache" rm org/tale
printf ../../../x >"$work/hub/models--org--tale/refs/main"
fails 3 'refs/main: names no commit' tokenize -m org/tale -p x

# Ctrl-C leaves what came; the next pull goes on with it. The server sends 5,000 bytes of a file and
# then waits, unless a range is asked for.
if [ -n "$python" ]; then
    cat >"$work/server.py" <<'PYTHON'
import http.server, sys, time
data = open(sys.argv[1], "rb").read()
class Slow(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def do_GET(self):
        start = int((self.headers["Range"] or "bytes=0-").split("=")[1].split("-")[0])
        probe = self.headers["Range"] == "bytes=0-0"
        found = self.path == "/m.gguf"
        end = 1 if probe else len(data)
        self.send_response(404 if not found else 206 if start or probe else 200)
        self.send_header("Content-Length", str(end - start if found else 0))
        self.send_header("ETag", '"one"')
        if start or probe:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if found:
            self.wfile.write(data[start:end if start or probe else 5000])
            self.wfile.flush()
            if not start and not probe:
                time.sleep(60)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
PYTHON
    gguf=tests/vectors/gguf/q8_0/model.gguf
    python3 "$work/server.py" "$gguf" >"$work/port" 2>/dev/null &
    server=$!
    part=$work/models/.m.part/.m.gguf.part
    for _ in $(seq 100); do
        [ ! -s "$work/port" ] || break
        sleep 0.1
    done
    url=http://127.0.0.1:$(cat "$work/port")
    "$program" pull "$url/m.gguf" >"$work/out" 2>"$work/err" &
    pid=$!
    for _ in $(seq 300); do
        [ "$(stat -c %s "$part" 2>/dev/null)" != 5000 ] || break
        sleep 0.1
    done
    kill -INT $pid
    wait $pid
    same 'pull: interrupted: exit status' $? 130
    same 'pull: interrupted: sentence' "$(cat "$work/err")" 'doppler: interrupted'
    same 'pull: interrupted: what is left' "$(stat -c %s "$part")" 5000
    json 'len(d) == 2 and d[1]["name"] == "org/tale" and "problem" in d[1]' ls
    json 'd["name"] == "m" and d["bytes_kept"] == 4999 and d["n_checked"] == 0' pull "$url/m.gguf"
    cmp -s "$gguf" "$work/models/m/m.gguf"
    same 'pull: continued: the same bytes' $? 0
    fails 7 '/none.gguf: the server says 404, not found' pull "$url/none.gguf"
    fails 7 'has neither manifest.json nor config.json' pull "$url/folder"
    kill $server
    wait $server 2>/dev/null
else
    skip 'pull from a server' 'no python3'
fi
