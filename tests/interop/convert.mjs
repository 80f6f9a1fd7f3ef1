// Has the public implementation of RDRR (npm: doppler-gpu) convert a folder of the Llama kind.
//
//   node convert.mjs MODEL OUT [--package DIR] [--weights f16|f32|q4k] [--layout row|col]
//        [--hash sha256|blake3] [--shard-size BYTES] [--keep NAME,NAME]
//
// Its converter infers sizes and tokens alone; everything else of a manifest comes from a
// configuration that is made here out of config.json. The execution graph is left empty: its
// loader takes that for "choose yourself". `--keep` names parts of tensor names that stay as they
// are. Host paths and the time are taken out of the manifest afterwards.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

function options(argv) {
  const out = { package: 'node_modules/doppler-gpu', weights: 'f16', layout: 'row',
    hash: 'sha256', 'shard-size': null, keep: '', names: [] };
  for (let i = 0; i < argv.length; i++) {
    if (!argv[i].startsWith('--')) {
      out.names.push(argv[i]);
      continue;
    }
    const key = argv[i].slice(2);
    if (key === 'names' || !(key in out) || argv[i + 1] === undefined) {
      console.error(`no option ${argv[i]}, or no value for it`);
      process.exit(2);
    }
    out[key] = argv[++i];
  }
  if (out.names.length !== 2) {
    console.error('usage: convert.mjs MODEL OUT [--package DIR] [--weights f16|f32|q4k] '
      + '[--layout row|col] [--hash sha256|blake3] [--shard-size BYTES] [--keep NAME,NAME]');
    process.exit(2);
  }
  return out;
}

function inferenceOf(config) {
  const head_dim = config.head_dim ?? config.hidden_size / config.num_attention_heads;
  const theta = config.rope_theta ?? config.rope_parameters?.rope_theta ?? 10000;
  const none = (...names) => Object.fromEntries(names.map((name) => [name, null]));
  return {
    attention: { queryPreAttnScalar: head_dim, queryKeyNorm: false, valueNorm: false,
      causal: true, attentionBias: Boolean(config.attention_bias),
      slidingWindow: config.sliding_window ?? null, ...none('attnLogitSoftcapping') },
    normalization: { rmsNormEps: config.rms_norm_eps, rmsNormWeightOffset: false,
      postAttentionNorm: true, preFeedforwardNorm: false, postFeedforwardNorm: false },
    ffn: { activation: 'silu', gatedActivation: true, branchMode: 'dense',
      useDoubleWideMlp: false, ...none('swigluLimit') },
    rope: { ropeTheta: theta, mropeInterleaved: false, ropeScalingFactor: 1,
      ropeLocalScalingFactor: 1,
      ...none('ropeLocalTheta', 'mropeSection', 'partialRotaryFactor',
        'ropeLocalPartialRotaryFactor', 'ropeFrequencyBaseDim', 'ropeLocalFrequencyBaseDim',
        'ropeScalingType', 'ropeLocalScalingType', 'yarnBetaFast', 'yarnBetaSlow',
        'yarnOriginalMaxPos', 'ropeLocalYarnBetaFast', 'ropeLocalYarnBetaSlow',
        'ropeLocalYarnOriginalMaxPos', 'longropeShortFactor', 'longropeLongFactor',
        'longropeOriginalMaxPos') },
    output: { tieWordEmbeddings: Boolean(config.tie_word_embeddings), scaleEmbeddings: false,
      logitInputScale: 1, embeddingTranspose: false,
      ...none('embeddingScale', 'embeddingVocabSize', 'finalLogitSoftcapping',
        'embeddingPostprocessor') },
    layerPattern: { type: 'uniform', residualBranchScale: 1,
      ...none('globalPattern', 'period', 'offset', 'layerTypes') },
    chatTemplate: { type: null, enabled: false },
  };
}

function sessionOf(config) {
  const off = (rest) => ({ mode: 'off', ...rest });
  return {
    compute: { defaults: { activationDtype: 'f32', mathDtype: 'f32', accumDtype: 'f32',
      outputDtype: 'f32' } },
    kvcache: { kvDtype: 'f16', layout: 'contiguous', pageSize: 256,
      maxSeqLen: config.max_position_embeddings,
      tiering: off({ hotWindow: 1024, coldPageSize: 256, coldDtype: 'f16',
        compression: { mode: 'none', blockSize: 1, bitWidth: 4, prodMode: false },
        gating: { mode: 'auto', minAluBwRatio: 0 } }),
      quantization: { mode: 'none', bitWidth: 4, prodMode: false } },
    decodeLoop: { batchSize: 1, stopCheckMode: 'batch', readbackInterval: 1,
      readbackMode: 'sequential', submitLatencyThresholdMs: null, ringTokens: 1, ringStop: 1,
      ringStaging: 1, disableCommandBatching: false },
    perLayerInputs: { materialization: 'auto',
      rowCache: off({ maxRows: 1, maxBytes: 1, decodedDtype: 'f32' }),
      prefetch: off({ rowsAhead: 1 }),
      gpuUpload: { mode: 'per_step_slices', stagingRows: 1 },
      hotCache: off({ maxTokens: 1, maxBytes: 1, outputDtype: 'f32' }) },
    prefillChunkSubmitMode: 'sync', useFlashPrefillAttention: false,
    useWideTileQ4KPrefill: false, retainQ4KMaterialization: false,
  };
}

function requestOf(args, config, name) {
  const others = args.weights === 'q4k' ? 'f16' : args.weights;
  return {
    modelType: 'transformer',
    output: { baseDir: path.dirname(args.names[1]), modelBaseId: name, textOnly: false,
      fast: false },
    quantization: { weights: args.weights, embeddings: others, lmHead: others,
      computePrecision: 'f32', ...(args.weights === 'q4k' ? { q4kLayout: args.layout } : {}),
      ...(args.keep ? { modulesToNotConvert: args.keep.split(',') } : {}) },
    manifest: { hashAlgorithm: args.hash,
      artifactIdentity: { sourceCheckpointId: path.basename(args.names[0]) } },
    ...(args['shard-size'] ? { sharding: { shardSizeBytes: Number(args['shard-size']) } } : {}),
    inference: inferenceOf(config),
    session: sessionOf(config),
    largeWeights: { gpuResidentOverrides: null },
    execution: { inlineKernelPath: true, kernels: {}, preLayer: [], decode: [], prefill: [],
      postLayer: [],
      policies: { unsupportedPrecision: 'error', dtypeTransition: 'require_cast_step',
        unresolvedKernel: 'error' } },
  };
}

function withoutHost(manifest) {
  manifest.metadata.source = manifest.artifactIdentity.sourceCheckpointId;
  delete manifest.metadata.convertedAt;
  manifest.artifactIdentity.conversionConfigPath = 'conversion.json';
  return manifest;
}

const args = options(process.argv.slice(2));
const [model, out] = args.names.map((name) => path.resolve(name));
const tool = path.resolve(args.package, 'src/tooling/node-command-runner.js');
const { runNodeCommand } = await import(pathToFileURL(tool).href);
const config = JSON.parse(fs.readFileSync(path.join(model, 'config.json'), 'utf8'));
const request = requestOf({ ...args, names: [model, out] }, config, path.basename(out));
// Its converter leaves a report under the current folder.
process.chdir(fs.mkdtempSync(path.join(os.tmpdir(), 'interop-')));
const { result } = await runNodeCommand({ command: 'convert', inputDir: model, outputDir: out,
  convertPayload: { converterConfig: request, execution: null } }, { onProgress() {} });
const file = path.join(out, 'manifest.json');
const manifest = withoutHost(JSON.parse(fs.readFileSync(file, 'utf8')));
fs.writeFileSync(file, JSON.stringify(manifest, null, 2));
console.log(`${out}: ${result.tensorCount} tensors, ${result.shardCount} shards`);
