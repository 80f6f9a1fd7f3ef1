// Asks the public implementation of RDRR (npm: doppler-gpu) what it makes of a pack.
//
//   node validate.mjs PACK [--package DIR] [--tokens 1,2,3] [--tokenizer FILE] [--no-load]
//        [--vectors FOLDER [--within X] [--out FILE]] [--loud]
//
// Five questions, a line or more for each: is the manifest accepted; are the files as declared;
// has every tensor the role and the group that its loader looks for, and a format that it reads;
// are the Merkle roots those that it computes; does the model load and give logits (on whatever
// GPU the npm package `webgpu` finds). `--vectors` names a folder with vectors.json and
// vectors.f32 (tests/vectors), with which the logits of its first positions are compared;
// `--within` refuses what is further off than X, without it differences are only reported;
// `--out` keeps these ([position, vocab] float32). Its loader wants a tokenizer, the logits do not:
// `--tokenizer` lends any tokenizer.json to a pack that has none.
//
// Exit status: 0 accepted, 1 refused, 2 wrong usage.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

// Its loader knows these by name. It takes every other name for plain floats without a word, and
// the first pass finds too few bytes.
const READ_BY_LOADER = new Set(['F32', 'F16', 'BF16', 'Q4_K_M', 'Q4_K', 'Q6_K', 'W4A16']);

// Options that take a value.
const NAMED = ['package', 'tokens', 'vectors', 'out', 'tokenizer', 'within'];

// How many positions of a vector are compared.
const STEPS = 40;

const print = console.log.bind(console);
let refused = 0;
let noted = 0;

function say(kind, text) {
  refused += kind === 'REFUSED';
  noted += kind === 'note';
  print(`${kind.padEnd(8)} ${text}`);
}

// The package sets its own log level whenever a model loads; only its console can be taken away.
function hush() {
  for (const name of ['log', 'info', 'warn', 'debug', 'error']) console[name] = () => {};
}

function usage(text) {
  console.error(`${text}\nusage: validate.mjs PACK [--package DIR] [--tokens 1,2,3] `
    + '[--vectors FOLDER [--within X] [--out FILE]] [--tokenizer FILE] [--no-load] [--loud]');
  process.exit(2);
}

function options(argv) {
  const out = { pack: null, package: 'node_modules/doppler-gpu', tokens: null, vectors: null,
    out: null, tokenizer: null, within: null,
    load: true, loud: false };
  for (let i = 0; i < argv.length; i++) {
    if (argv[i] === '--no-load') out.load = false;
    else if (argv[i] === '--loud') out.loud = true;
    else if (argv[i].startsWith('--')) {
      const key = argv[i].slice(2);
      if (!NAMED.includes(key)) usage(`no option ${argv[i]}`);
      if (argv[++i] === undefined) usage(`--${key} needs a value`);
      out[key] = argv[i];
    } else if (out.pack === null) out.pack = argv[i];
    else usage(`one pack at a time, not also ${argv[i]}`);
  }
  if (out.pack === null) usage('no pack named');
  return out;
}

// Everything of the package that is asked, by file: its exports do not name all of it.
async function judge(dir) {
  const root = path.resolve(dir);
  const load = (file) => import(pathToFileURL(path.join(root, file)).href);
  const version = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')).version;
  const [rdrr, refresh, client, storage, hasher] = await Promise.all([
    load('src/formats/rdrr/index.js'),
    load('src/tooling/rdrr-integrity-refresh.js'),
    load('src/client/doppler-api.js'),
    load('src/storage/artifact-storage-context.js'),
    load('src/storage/shard-manager.js'),
  ]);
  return { version, ...rdrr, ...refresh, ...client, ...storage, ...hasher };
}

function manifestOf(its, text) {
  try {
    const manifest = its.parseManifest(text);
    const { warnings } = its.validateManifest(manifest);
    for (const warning of warnings) say('note', `manifest: ${warning}`);
    say('ok', `manifest: accepted, ${Object.keys(manifest.tensors ?? {}).length} tensors, `
      + `${manifest.shards.length} shards`);
    return manifest;
  } catch (error) {
    for (const line of String(error.message).split('\n')) say('REFUSED', `manifest: ${line}`);
    return null;
  }
}

async function hashOf(its, algorithm, bytes) {
  if (algorithm !== 'blake3') return createHash('sha256').update(bytes).digest('hex');
  const state = await its.createStreamingHasher('blake3');
  state.update(bytes);
  return Buffer.from(await state.finalize()).toString('hex');
}

async function files(its, pack, manifest) {
  for (const shard of manifest.shards) {
    const file = path.join(pack, shard.filename);
    if (!fs.existsSync(file)) {
      say('REFUSED', `${shard.filename}: missing`);
      continue;
    }
    const bytes = fs.readFileSync(file);
    if (bytes.length !== shard.size) {
      say('REFUSED', `${shard.filename}: ${bytes.length} bytes, declared ${shard.size}`);
    }
    const algorithm = shard.hashAlgorithm ?? manifest.hashAlgorithm;
    const hash = await hashOf(its, algorithm, bytes);
    if (hash !== its.getExpectedShardHash(shard, algorithm)) {
      say('REFUSED', `${shard.filename}: ${algorithm} is ${hash}, declared ${shard.hash}`);
    }
  }
  const names = fs.readdirSync(pack).filter((name) => /^shard_.*\.bin$/.test(name));
  const declared = new Set(manifest.shards.map((shard) => shard.filename));
  for (const name of names) if (!declared.has(name)) say('note', `${name}: not in the manifest`);
  say('ok', `files: ${manifest.shards.length} shards read`);
}

function tensorMap(its, pack, manifest) {
  if (manifest.tensors) return manifest.tensors;
  const text = fs.readFileSync(path.join(pack, manifest.tensorsFile), 'utf8');
  return its.parseTensorMap(text);
}

// Where a tensor's bytes lie: [[shard, from, to], ...].
function pieces(tensor) {
  const spans = tensor.spans ?? [tensor];
  return spans.map((s) => [s.shardIndex ?? s.shard, s.offset, s.offset + s.size]);
}

function tensors(its, manifest, map) {
  const kinds = new Map();
  for (const [name, tensor] of Object.entries(map)) {
    const key = `${tensor.dtype}${tensor.layout ? ` ${tensor.layout}` : ''}`;
    kinds.set(key, (kinds.get(key) ?? 0) + 1);
    const role = its.classifyTensorRole(name);
    const group = its.classifyTensor(name, manifest.modelType);
    if (tensor.role !== role) say('note', `${name}: role ${tensor.role}, its own: ${role}`);
    if (tensor.group !== group) say('note', `${name}: group ${tensor.group}, its own: ${group}`);
    if (!READ_BY_LOADER.has(tensor.dtype) && !tensor.sourceTransform) {
      say('REFUSED', `${name}: ${tensor.dtype} is not read by its loader`);
    }
    let bytes = 0;
    for (const [shard, from, to] of pieces(tensor)) {
      bytes += to - from;
      if (!(to <= manifest.shards[shard]?.size)) {
        say('REFUSED', `${name}: ends at ${to} in shard ${shard} of `
          + `${manifest.shards[shard]?.size} bytes`);
      }
    }
    if (bytes !== tensor.size) say('REFUSED', `${name}: pieces ${bytes}, size ${tensor.size}`);
  }
  const list = [...kinds].map(([kind, count]) => `${count} ${kind}`).join(', ');
  say('ok', `tensors: ${list}`);
}

async function roots(its, pack, manifest, map) {
  const declared = manifest.integrityExtensions?.blockMerkle;
  if (!declared) {
    say('note', 'integrity: no Merkle roots');
    return;
  }
  let theirs;
  try {
    const { integrityExtensions } = await its.buildManifestIntegrityFromModelDir(manifest, {
      modelDir: pack, tensorMap: map, blockSize: declared.blockSize });
    theirs = integrityExtensions.blockMerkle.roots;
  } catch (error) {
    say('REFUSED', `integrity: ${error.message}`);
    return;
  }
  const names = new Set([...Object.keys(theirs), ...Object.keys(declared.roots)]);
  let bad = 0;
  for (const name of names) {
    if (theirs[name] === declared.roots[name]) continue;
    bad++;
    say('REFUSED', `integrity: ${name} is ${theirs[name]}, declared ${declared.roots[name]}`);
  }
  if (!bad) say('ok', `integrity: ${names.size} roots equal, blocks of ${declared.blockSize}`);
}

// A storage for its loader that notes which bytes were asked for.
async function watched(its, args, manifest, read) {
  const url = pathToFileURL(path.resolve(args.pack)).href;
  const storage = await its.createNodeFileArtifactStorageContext(url, manifest);
  const lent = args.tokenizer && !manifest.tokenizer
    ? { loadTokenizerJson: () => JSON.parse(fs.readFileSync(args.tokenizer, 'utf8')) } : {};
  return { ...storage, ...lent,
    loadShard: (index) => {
      read.push([index, 0, manifest.shards[index].size, true]);
      return storage.loadShard(index);
    },
    loadShardRange: (index, offset = 0, length = null) => {
      const end = length === null ? manifest.shards[index].size : offset + length;
      read.push([index, offset, end, false]);
      return storage.loadShardRange(index, offset, length);
    },
    async* streamShardRange(index, offset = 0, length = null, rest = {}) {
      const end = length === null ? manifest.shards[index].size : offset + length;
      read.push([index, offset, end, false]);
      yield* storage.streamShardRange(index, offset, length, rest);
    } };
}

function touched(map, read) {
  if (read.some((range) => range[3])) {
    say('note', 'load: whole shards were read, so unread tensors cannot be told');
    return;
  }
  for (const [name, tensor] of Object.entries(map)) {
    const all = pieces(tensor).every(([shard, from, to]) =>
      read.some((r) => r[0] === shard && r[1] < to && r[2] > from));
    if (!all) say('note', `${name}: never read by its loader`);
  }
}

// Largest distance of two rows of logits, and whether both have the same best token.
function compare(got, want) {
  let worst = 0;
  let best = 0;
  let best_want = 0;
  for (let i = 0; i < want.length; i++) {
    const difference = Math.abs(got[i] - want[i]);
    if (!(difference <= worst)) worst = Number.isNaN(difference) ? Infinity : difference;
    if (got[i] > got[best]) best = i;
    if (want[i] > want[best_want]) best_want = i;
  }
  return { worst, same: best === best_want };
}

// Logits after each token in turn, one token a pass: its kernels for longer passes give other
// numbers on SwiftShader, whoever wrote the pack (see README.md), so those are only reported.
async function* steps(model, ids) {
  const first = await model.advanced.prefillWithLogits(' ', { inputIds: ids.slice(0, 1) });
  yield first.logits;
  for (let n = 2; n <= ids.length; n++) {
    yield (await model.advanced.decodeStepLogits(ids.slice(0, n))).logits;
  }
}

async function logitsOfVectors(model, args) {
  const { vectors: folder, out } = args;
  const { tokens, positions } = JSON.parse(fs.readFileSync(`${folder}/vectors.json`, 'utf8'));
  const bytes = fs.readFileSync(`${folder}/vectors.f32`);
  const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset
    + bytes.length));
  const width = all.length / positions.length;
  const row = (n) => {
    const i = positions.indexOf(n - 1);
    return i < 0 ? null : all.subarray(i * width, (i + 1) * width);
  };
  let [n, compared, same, worst] = [0, 0, 0, 0];
  const rows = [];
  for await (const got of steps(model, tokens.slice(0, STEPS))) {
    if (out) rows.push(Buffer.from(Float32Array.from(got).buffer));
    const want = row(++n);
    if (!want) continue;
    const c = compare(got, want);
    compared++;
    same += c.same;
    worst = Math.max(worst, c.worst);
  }
  if (out) fs.writeFileSync(out, Buffer.concat(rows));
  if (worst === Infinity) say('REFUSED', 'logits: not all finite');
  else if (args.within !== null && !(worst <= Number(args.within))) {
    say('REFUSED', `logits: further off than ${args.within}`);
  }
  say('logits', `${compared} positions, a token a pass: largest difference `
    + `${worst.toExponential(2)}, best token equal in ${same}`);
  for (const length of [2, 7, 33]) {
    if (!row(length)) continue;
    const got = await model.advanced.prefillWithLogits(' ', { inputIds: tokens.slice(0, length) });
    const c = compare(got.logits, row(length));
    say('logits', `${length} tokens in a pass: largest difference ${c.worst.toExponential(2)}, `
      + `best token ${c.same ? 'equal' : 'other'}`);
  }
}

async function logits(model, args, vocab) {
  if (args.vectors) {
    await logitsOfVectors(model, args);
    return;
  }
  const ids = (args.tokens ?? '1,2,3').split(',').map((id) => Number(id) % vocab);
  let last = null;
  for await (const got of steps(model, ids)) last = got;
  say('logits', `[${ids}]: ${Array.from(last.slice(0, 8), (x) => x.toFixed(4)).join(' ')} ...`);
  if (!last.every(Number.isFinite)) say('REFUSED', 'logits: not all finite');
}

async function run(its, args, manifest, map) {
  const read = [];
  const own = JSON.parse(fs.readFileSync(path.join(args.pack, 'manifest.json'), 'utf8'));
  if (args.tokenizer && !own.tokenizer) {
    say('note', 'load: the pack has no tokenizer, one was lent');
    own.tokenizer = { type: 'bundled', file: 'tokenizer.json',
      vocabSize: own.architecture.vocabSize };
  }
  try {
    const storage = await watched(its, args, manifest, read);
    const model = await its.load({ manifest: own, manifestText: JSON.stringify(own),
      storageContext: storage }, { onProgress() {} });
    say('ok', 'load: done');
    await logits(model, args, manifest.architecture.vocabSize);
    touched(map, read);
    await model.unload();
  } catch (error) {
    say('REFUSED', `load: ${String(error?.message ?? error).split('\n')[0]}`);
  }
}

const args = options(process.argv.slice(2));
if (!args.loud) hush();
const its = await judge(args.package);
print(`         doppler-gpu ${its.version} on ${path.basename(path.resolve(args.pack))}`);
const manifest = manifestOf(its, fs.readFileSync(path.join(args.pack, 'manifest.json'), 'utf8'));
if (manifest) {
  const map = tensorMap(its, args.pack, manifest);
  await files(its, args.pack, manifest);
  tensors(its, manifest, map);
  await roots(its, args.pack, manifest, map);
  if (args.load) await run(its, args, manifest, map);
}
print(refused ? `verdict: refused (${refused})` : `verdict: accepted (${noted} notes)`);
// Dawn's callback pump would keep the process alive.
process.exit(refused ? 1 : 0);
