// The chat page in a real Chromium: it is talked to, looked at and stopped.
//
//     npm i puppeteer-core
//     tinylm serve RUN OTHER --port 8080 &
//     node stages/serve/benches/page_peer.mjs http://127.0.0.1:8080 [/usr/bin/chromium] [FOLDER FOR PICTURES]
//
// Run it from the folder with node_modules. Prints a line for each thing that was tried; exits with 1 at a failure.

import { createRequire } from "node:module";
const puppeteer = createRequire(process.cwd() + "/")("puppeteer-core");

const [url, executablePath = "/usr/bin/chromium", pictures = "."] = process.argv.slice(2);
const check = (what, holds) => {
  console.log(holds ? "ok    " : "FAILED", what);
  if (!holds) process.exit(1);
};
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage();
const faults = [];
page.on("pageerror", (error) => faults.push(error.message));
page.on("console", (line) => line.type() === "error" && faults.push(line.text()));
const outside = [];
page.on("request", (request) => request.url().startsWith(url) || outside.push(request.url()));

await page.setViewport({ width: 1200, height: 800 });
await page.goto(url);
await page.waitForFunction("document.querySelector('#model').options.length > 0");
const say = async (text) => {
  await page.type("#text", text);
  await page.keyboard.press("Enter");
};
const done = () => page.waitForFunction("document.querySelector('#send').textContent === 'Send' && document.querySelector('.answer')", { timeout: 60000 });
const answers = () => page.$$eval(".answer", (all) => all.map((one) => one.innerText));
await page.$eval("#seed", (seed) => { seed.value = "3"; });
await say("What is the capital of France?");
await done();
const [first] = await answers();
check(`an answer: ${JSON.stringify(first.slice(0, 60))}`, first.length > 2);
await (await page.$(".token")).hover();
check("likelihoods of a token", /%/.test(await page.$eval("#tip", (tip) => (tip.hidden ? "" : tip.textContent))));
await page.screenshot({ path: `${pictures}/page-1200.png` });
await page.click(".foot button");
await done();
check("the same seed says the same again", (await answers())[0] === first);
if (await page.$eval("#other", (other) => !other.hidden)) {
  await page.$eval("#other", (other) => { other.selectedIndex = 2; });
  await say("And of Italy?");
  await done();
  check("two models side by side", (await answers()).length === 3);
}
await page.$eval("#max_tokens", (n) => { n.value = "400"; });
await page.$eval("#temperature", (n) => { n.value = "2"; });
await say("Tell a long story.");
await page.waitForFunction("[...document.querySelectorAll('.answer')].at(-1)?.querySelectorAll('.token').length > 3");
await page.click("#send");
await done();
check("an answer is stopped", /stopped$/.test((await answers()).at(-1)));
await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
await page.setViewport({ width: 390, height: 800 });
await page.screenshot({ path: `${pictures}/page-390.png` });
check("nothing is wider than a phone", await page.evaluate("document.documentElement.scrollWidth <= innerWidth"));
check(`nothing is fetched from elsewhere ${outside}`, outside.length === 0);
check(`no fault in the page ${faults}`, faults.length === 0);
await browser.close();
