// Reads resources as NDJSON, and prints what Lantana's validator (npm: fhir) holds for an error.
const { readFileSync } = require("node:fs");
const { Fhir } = require(`${process.argv[2]}/fhir`);

const validator = new Fhir();
for (const line of readFileSync(0, "utf8").split("\n")) {
  if (!line) continue;
  const resource = JSON.parse(line);
  const told = validator.validate(resource, { errorOnUnexpected: true });
  for (const { severity, location, message } of told.messages) {
    if (severity !== "error" && severity !== "fatal") continue;
    const of = `${resource.resourceType}/${resource.id}`;
    console.log(JSON.stringify({ of, location, message }));
  }
}
