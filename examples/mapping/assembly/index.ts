// Maps a partner's orders into ours.

import { describe, stageWith } from "@millrace/pdk";
import { map } from "./mapping";
import { Mapping, SCHEMA } from "./settings";

export * from "@millrace/pdk/assembly/exports";

describe({
  name: "mapping",
  version: "1.0.0",
  sample: [
    '{"value":{"bestellnummer":"B-1","datum":"24.12.2026 18:05","waehrung":"EUR","summe":25.98,"kunde":{"nr":7,"name":"Jane"},"positionen":[{"artikel":"A-345","menge":2,"preis":12.99}]}}',
  ],
  config: SCHEMA,
  memoryMB: 16,
});

stageWith<Mapping>(map, Mapping.read);
