// What AsyncAPI's own parser says of documents: `node validate.mjs FOLDER-OF-THE-PARSER FILE ...`, as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const { Parser } = createRequire(`${resolve(folder)}/`)("@asyncapi/parser");
const parser = new Parser();
const found = {};
for (const file of files) {
  const { document, diagnostics } = await parser.parse(readFileSync(file, "utf8"));
  const wrong = diagnostics.map(({ code, message, path }) => `${code} at ${path.join(".")}: ${message}`);
  found[file] = { parsed: document?.version() ?? null, wrong };
}
console.log(JSON.stringify(found));
