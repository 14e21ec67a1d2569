// What fhir-kit-client does with an exchange: a JSON value for each step, a line each.
import { pathToFileURL } from "node:url";

const [packages, baseUrl, bearerToken, system] = process.argv.slice(2);
const address = pathToFileURL(`${packages}/fhir-kit-client/dist/index.js`);
const { Client } = await import(address.href);
const client = new Client({ baseUrl, bearerToken });
const tell = (step, told) => console.log(JSON.stringify({ step, told }));
const weight = (id) => ({
  resourceType: "Observation",
  status: "preliminary",
  code: { text: "weight" },
  subject: { reference: id },
});

tell("capability", (await client.capabilityStatement()).fhirVersion);
tell("smart", await client.smartAuthMetadata());

const patient = await client.create({
  resourceType: "Patient",
  body: {
    resourceType: "Patient",
    identifier: [{ system, value: "K1" }],
    name: [{ family: "赵", given: ["敏"] }],
    gender: "female",
  },
});
const who = `Patient/${patient.id}`;
tell("read", (await client.read({ resourceType: "Patient", id: patient.id })).name);

const made = await client.create({ resourceType: "Observation", body: weight(who) });
const { id } = made;
const resourceType = "Observation";
await client.update({ resourceType, id, body: { ...made, status: "final" } });
const jsonPatch = [{ op: "add", path: "/valueString", value: "72 kg" }];
const patched = await client.patch({ resourceType, id, JSONPatch: jsonPatch, jsonPatch });
tell("patched", [patched.status, patched.valueString, patched.meta.versionId]);
tell("vread", (await client.vread({ resourceType, id, version: "1" })).status);
tell("resolved", (await client.resolve({ reference: who })).id === patient.id);

for (const number of [1, 2, 3]) {
  const body = { ...weight(who), valueInteger: number };
  await client.create({ resourceType, body });
}
const first = await client.search({
  resourceType,
  searchParams: { subject: who, _count: 2, _include: "Observation:subject" },
});
let pages = 0;
let found = 0;
for (let page = first; page; page = await client.nextPage({ bundle: page })) {
  pages += 1;
  found += page.entry.filter((one) => one.search.mode === "match").length;
}
tell("searched", [pages, found]);
const posted = { resourceType, searchParams: { subject: who }, options: { postSearch: true } };
tell("posted", (await client.search(posted)).entry.length);
const within = { resourceType: "Patient", id: patient.id };
const compartment = { resourceType, compartment: within };
tell("compartment", (await client.compartmentSearch(compartment)).entry.length);

const entry = ["urn:uuid:5ad7ab54-8e5d-4a5c-9a2e-000000000001"].map((fullUrl) => ({
  fullUrl,
  resource: { ...weight(who), status: "final" },
  request: { method: "POST", url: resourceType },
}));
const transaction = { resourceType: "Bundle", type: "transaction", entry };
tell("transaction", (await client.transaction({ body: transaction })).entry[0].response.status);
const batch = {
  resourceType: "Bundle",
  type: "batch",
  entry: [{ request: { method: "GET", url: who } }],
};
tell("batch", (await client.batch({ body: batch })).entry[0].resource.id === patient.id);

const everything = await client.operation({ ...within, name: "$everything", method: "GET" });
tell("everything", everything.entry.length);
const validated = await client.operation({
  resourceType,
  name: "$validate",
  input: {
    resourceType: "Parameters",
    parameter: [{ name: "resource", resource: { resourceType, status: "final" } }],
  },
});
tell("validated", validated.issue[0].severity);
tell("history", (await client.history({ resourceType, id })).entry.length);

await client.delete({ resourceType, id });
try {
  await client.read({ resourceType, id });
} catch (error) {
  tell("gone", [error.response.status, error.response.data.resourceType]);
}
