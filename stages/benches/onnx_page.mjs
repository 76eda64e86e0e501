// An exported graph as transformers.js runs it, in node and in a page of a real Chromium, against what tinylm answers.
//
//     npm install --ignore-scripts @huggingface/transformers
//     NODE_PATH=node_modules node stages/benches/onnx_page.mjs --tinylm target/release/tinylm RUN|FOLDER
//
// Exits with 1 if any greedy answer is another.

import { execFileSync, spawn } from "node:child_process";
import { createReadStream, existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [flag, program, model] = process.argv.slice(2);
const modules = resolve(process.env.NODE_PATH ?? "node_modules");
if (flag !== "--tinylm" || !model || !existsSync(join(modules, "@huggingface/transformers"))) {
  console.log("SKIPPED: asks for --tinylm PROGRAM MODEL, and for @huggingface/transformers in NODE_PATH");
  process.exit(0);
}
const PROMPTS = ["how are you ?", "what is your name ?", "a"];
const N_TOKENS = 20;
const work = mkdtempSync(join(tmpdir(), "onnx-page-"));
const folder = join(work, "model");
const tinylm = (...args) => execFileSync(program, args, { encoding: "utf8" });

function ours(prompt) {
  const words = ["--text", "--temperature", "0", "--nonstop", "-n", String(N_TOKENS), "--json"];
  return JSON.parse(tinylm("sample", model, "-p", prompt, ...words))[0].text;
}

// The same lines run in both places.
const ANSWERS = `async (pipeline, folder) => {
  const generate = await pipeline("text-generation", folder);
  const settings = { do_sample: false, max_new_tokens: ${N_TOKENS}, min_new_tokens: ${N_TOKENS}, eos_token_id: null, return_full_text: false };
  const answers = [];
  for (const prompt of ${JSON.stringify(PROMPTS)}) answers.push((await generate(prompt, settings))[0].generated_text);
  return answers;
}`;

const PAGE = `<!doctype html><script type="importmap">{"imports": {
  "onnxruntime-common": "/modules/onnxruntime-common/dist/esm/index.js",
  "onnxruntime-web/webgpu": "/modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs"
}}</script><script type="module">
  import { env, pipeline } from "/modules/@huggingface/transformers/dist/transformers.min.js";
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/";
  env.backends.onnx.wasm.wasmPaths = "/modules/onnxruntime-web/dist/";
  const told = (result) => fetch("/answers", { method: "POST", body: JSON.stringify(result) });
  (${ANSWERS})(pipeline, "model").then(told, (error) => told(String(error.stack ?? error)));
</script>`;

const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

function respond(request, response, done) {
  if (request.url === "/") return response.setHeader("content-type", "text/html").end(PAGE);
  if (request.url === "/answers") {
    let body = "";
    request.on("data", (part) => (body += part));
    return request.on("end", () => done(JSON.parse(body), response.end()));
  }
  const path = request.url.startsWith("/modules/") ? join(modules, request.url.slice(9)) : join(work, request.url);
  if (!existsSync(path)) return response.writeHead(404).end();
  response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
  createReadStream(path).pipe(response);
}

async function inChromium() {
  let done;
  const answers = new Promise((resolve) => (done = resolve));
  const server = createServer((request, response) => respond(request, response, done));
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"];
  const address = `http://127.0.0.1:${server.address().port}/`;
  const child = spawn("chromium", [...flags, `--user-data-dir=${join(work, "profile")}`, address], { stdio: "ignore" });
  child.on("error", (error) => done(`SKIPPED: ${error.message}`));
  const patience = setTimeout(() => done("no answer in two minutes"), 120_000);
  const result = await answers;
  clearTimeout(patience);
  // Its profile is written to until it has gone.
  const gone = new Promise((resolve) => child.on("close", resolve));
  if (child.pid && child.kill()) await gone;
  server.closeAllConnections();
  server.close();
  return result;
}

async function inNode() {
  const { pipeline } = await import(pathToFileURL(join(modules, "@huggingface/transformers/dist/transformers.node.mjs")));
  return (0, eval)(ANSWERS)(pipeline, folder);
}

tinylm("export", model, "--to", "onnx", "--out", folder);
const expected = JSON.stringify(PROMPTS.map(ours));
let isSame = true;
for (const [name, run] of [["node", inNode], ["chromium", inChromium]]) {
  const found = JSON.stringify(await run());
  isSame &&= found === expected;
  console.log(`${name}: ${found === expected ? "the same" : `${found} and not ${expected}`}`);
}
rmSync(work, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
process.exit(isSame ? 0 : 1);
