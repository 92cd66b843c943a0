// What `prisma db push` and `prisma migrate diff` do, with their own schema engine in its WebAssembly build: the native
// one cannot be had from a package registry. Prints one JSON object.
//
//   DATABASE_URL=... node push.mjs schema.prisma
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { PrismaPg } from '@prisma/adapter-pg'
import { bindMigrationAwareSqlAdapterFactory } from '@prisma/driver-adapter-utils'
import * as bindings from '@prisma/schema-engine-wasm/schema_engine_bg'
import pg from 'pg'

const CHAR = 18
const TEXT = 25

/** PostgreSQL's catalogue has columns of the one-byte type "char", which the adapter does not know. */
class Pool extends pg.Pool {
  async query(...query) {
    const result = await super.query(...query)
    for (const field of result.fields) {
      if (field.dataTypeID === CHAR) field.dataTypeID = TEXT
    }
    return result
  }
}

async function startEngine(pool, path, content) {
  const file = new URL('schema_engine_bg.wasm', import.meta.resolve('@prisma/schema-engine-wasm'))
  const imports = { './schema_engine_bg.js': bindings }
  const { instance } = await WebAssembly.instantiate(readFileSync(fileURLToPath(file)), imports)
  bindings.__wbg_set_wasm(instance.exports)
  instance.exports.__wbindgen_start()
  const factory = bindMigrationAwareSqlAdapterFactory(new PrismaPg(pool))
  return bindings.SchemaEngine.new({ datamodels: [[path, content]] }, () => {}, factory)
}

const path = process.argv[2]
const content = readFileSync(path, 'utf8')
const pool = new Pool({ connectionString: process.env.DATABASE_URL })
const engine = await startEngine(pool, path, content)
const schema = { files: [{ path, content }] }
const filters = { externalTables: [], externalEnums: [] }
const drift = await engine.diff({
  from: { tag: 'schemaDatasource', ...schema, configDir: '.' },
  to: { tag: 'schemaDatamodel', ...schema },
  script: true,
  exitCode: null,
  filters,
})
const pushed = await engine.schemaPush({ force: false, schema, filters })
console.log(JSON.stringify({ sql: drift.stdout, ...pushed }))
await pool.end()
