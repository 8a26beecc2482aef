// A face-recognition network in the browser: the folder's model, its contract, and a runtime from npm.
//
//   import { openRecognizer, similarity } from "./recognizer.js";
//   const recognizer = await openRecognizer();
//   similarity(await recognizer.embed(crop), await recognizer.embed(other)); // -1..1

/**
 * Open the model of a folder that `efq export --format web` wrote.
 *
 * @param {string | URL} folder where the folder is served
 * @param {string | URL} packages where npm's packages are served
 * @returns {Promise<{contract, site, embed}>} `embed` takes a crop, {width, height, data} with
 *   RGBA bytes, of the contract's size. It gives the embedding, a Float32Array, not normalized
 */
export async function openRecognizer(folder = import.meta.url, packages = "./node_modules/") {
  const place = new URL("./", new URL(folder, self.location.href));
  const [contract, site] = await Promise.all(
    ["contract.json", "efquantface.json"].map(async (name) => (await got(place, name)).json()),
  );
  const model = new Uint8Array(await (await got(place, site.model)).arrayBuffer());
  const runtime = { litert, onnxruntime }[site.runtime];
  const { run, last } = await runtime(model, contract, new URL(packages, place).href);
  const tables = preprocessing(contract);
  const embed = (crop) => run(tensorOf(crop, contract, tables, last));
  return { contract, site, embed };
}

/** The cosine of two embeddings. */
export function similarity(a, b) {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return ab / Math.sqrt(aa * bb);
}

async function got(place, name) {
  const answer = await fetch(new URL(name, place));
  if (!answer.ok) throw new Error(`${name} is not served here (${answer.status}).`);
  return answer;
}

/** (level - mean) / std of each level in float32, one table per plane of the input. */
function preprocessing({ mean, std }) {
  const level = (value, c) => Math.fround(value - Math.fround(mean[c])) / Math.fround(std[c]);
  return [0, 1, 2].map((c) => Float32Array.from({ length: 256 }, (_, value) => level(value, c)));
}

/** The network's input for an RGBA crop: (3, height, width), or (height, width, 3) where `last`. */
function tensorOf({ width, height, data }, contract, tables, last) {
  if (width !== contract.width || height !== contract.height) {
    throw new RangeError(`A crop has ${contract.width} x ${contract.height} pixels.`);
  }
  const size = width * height;
  const [pixels, planes] = last ? [3, 1] : [1, size];
  const input = new Float32Array(3 * size);
  for (let plane = 0; plane < 3; plane++) {
    const channel = contract.color === "RGB" ? plane : 2 - plane;
    for (let i = 0; i < size; i++) {
      input[plane * planes + i * pixels] = tables[plane][data[4 * i + channel]];
    }
  }
  return input;
}

async function onnxruntime(model, contract, packages) {
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.wasmPaths = `${packages}onnxruntime-web/dist/`;
  if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1; // without isolation there are no threads
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const shape = [1, 3, contract.height, contract.width];
  const run = async (input) => {
    const fed = { [session.inputNames[0]]: new ort.Tensor("float32", input, shape) };
    return (await session.run(fed))[session.outputNames[0]].data;
  };
  return { run, last: false };
}

let loaded; // LiteRT.js; a page loads it once for all models

async function litert(model, contract, packages) {
  const { loadLiteRt, loadAndCompile, Tensor } = await import("@litertjs/core");
  const folder = `${packages}@litertjs/core/wasm/`;
  // threads need relaxed SIMD, which not every browser has
  loaded ??= self.crossOriginIsolated
    ? loadLiteRt(folder, { threads: true }).catch(() => loadLiteRt(folder))
    : loadLiteRt(folder);
  await loaded;
  const compiled = await loadAndCompile(model, { accelerator: "wasm" });
  const run = async (input) => {
    const tensor = new Tensor(input, [1, contract.height, contract.width, 3]);
    const [result] = await compiled.run(tensor);
    const embedding = result.toTypedArray().slice();
    tensor.delete();
    result.delete();
    return embedding;
  };
  return { run, last: true };
}
