// Reads and writes "AIUsage" as an application does, with the client that Prisma generated. Prints one JSON object.
//
//   DATABASE_URL=... node client.mjs TENANT ID
import { createRequire } from 'node:module'

import { PrismaPg } from '@prisma/adapter-pg'

const { PrismaClient } = createRequire(import.meta.url)('./generated')

const [tenantId, id] = process.argv.slice(2)
const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL })
const prisma = new PrismaClient({ adapter })

const now = new Date()
const month = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1))
const record = await prisma.aIUsage.findUnique({ where: { id } })
const byService = await prisma.aIUsage.groupBy({
  by: ['service'],
  where: { tenantId, createdAt: { gte: month } },
  _count: true,
  _sum: { tokens: true, cost: true },
  orderBy: { service: 'asc' },
})
const own = await prisma.aIUsage.create({ data: { id: `own-${id}`, tenantId, service: 'chat', tokens: 3 } })
console.log(JSON.stringify({ record, byService, own }))
await prisma.$disconnect()
