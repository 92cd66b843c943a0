"""`"AIUsage"` as Prisma sees it: the documented model, the real client and the real schema engine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from aiservice_api.tasks import Task
from aiservice_gateway.ids import new_request_id
from aiservice_gateway.models import Outcome, UsageRecord, timestamp
from aiservice_gateway.stores.postgres import PostgresUsage
from support.databases import PostgresServer
from support.gateway import command
from support.prisma import Prisma, documented_model

MODEL = documented_model()
NOTHING = {"sql": "-- This is an empty migration.\n", "executedSteps": 0, "unexecutable": [], "warnings": []}
TABLES = """
SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'aiservice') ORDER BY 1
"""
NOW = datetime.now(UTC).replace(microsecond=123_000)
RECORD = UsageRecord(
    new_request_id(), "acme", "ann", Task.SPEECH_TO_TEXT, "openai/whisper", 7, Decimal("2.5"), "audio-second",
    Decimal("0.00010001"), 12, Outcome.SUCCEEDED, NOW,
)  # fmt: skip

APPLICATIONS_OWN = """
model Tenant {
  id    String    @id
  usage AIUsage[]
}

model AIUsage {
  id        String   @id @default(uuid())
  tenantId  String
  tenant    Tenant   @relation(fields: [tenantId], references: [id])
  service   String
  tokens    Int
  note      String?
  createdAt DateTime @default(now())

  @@index([tenantId, createdAt])
}
"""
"""As the deployment guide's application may have it: the columns of the guide's SQL, and some of its own."""


@pytest.fixture(scope="module")
def prisma(tmp_path_factory: pytest.TempPathFactory) -> Prisma:
    made = Prisma(tmp_path_factory.mktemp("prisma"))
    made.generate(MODEL)
    return made


async def insert(database: str, *records: UsageRecord) -> None:
    store = PostgresUsage(database)
    await store.insert(records)
    await store.close()


def test_prisma_finds_nothing_to_change(
    prisma: Prisma, migrated_database: str, postgres_server: PostgresServer
) -> None:
    tables = postgres_server.psql(migrated_database, TABLES)
    assert prisma.push(migrated_database, MODEL) == NOTHING
    assert postgres_server.psql(migrated_database, TABLES) == tables
    assert {"public.AIUsage", "aiservice.jobs"} <= set(tables.splitlines())


def test_prisma_would_notice(prisma: Prisma, migrated_database: str) -> None:
    pushed = prisma.push(migrated_database, MODEL.replace("  @@index([createdAt])\n", ""))
    assert 'DROP INDEX "AIUsage_createdAt_idx"' in pushed["sql"]


async def test_prisma_reads_what_the_gateway_wrote(prisma: Prisma, migrated_database: str) -> None:
    more = [
        replace(RECORD, id=new_request_id(), service=Task.TEXT_TO_IMAGE, tokens=5),
        replace(RECORD, id=new_request_id(), created_at=NOW - timedelta(days=40)),
        replace(RECORD, id=new_request_id(), tenant="other"),
    ]
    await insert(migrated_database, RECORD, *more)
    seen = prisma.client(migrated_database, "acme", RECORD.id)
    assert seen["record"] == {
        "id": RECORD.id,
        "tenantId": "acme",
        "userId": "ann",
        "service": "speech-to-text",
        "model": "openai/whisper",
        "requestId": RECORD.id,
        "tokens": 7,
        "units": "2.5",
        "unit": "audio-second",
        "cost": "0.00010001",
        "durationMs": 12,
        "status": "succeeded",
        "createdAt": timestamp(NOW),
    }
    assert seen["byService"] == [
        {"service": "speech-to-text", "_count": 1, "_sum": {"tokens": 7, "cost": "0.00010001"}},
        {"service": "text-to-image", "_count": 1, "_sum": {"tokens": 5, "cost": "0.00010001"}},
    ]
    written = datetime.fromisoformat(seen["own"]["createdAt"])
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60


async def test_the_gateway_writes_into_prismas_table(prisma: Prisma, database_url: str) -> None:
    made = prisma.push(database_url, MODEL)
    assert made["executedSteps"] > 0
    migrated = command("migrate", DATABASE_URL=database_url)
    assert migrated.returncode == 0, migrated.stderr
    await insert(database_url, RECORD)
    assert prisma.push(database_url, MODEL) == NOTHING
    assert prisma.client(database_url, "acme", RECORD.id)["record"]["cost"] == "0.00010001"


async def test_an_applications_own_model_is_adopted(
    prisma: Prisma, database_url: str, postgres_server: PostgresServer
) -> None:
    prisma.push(database_url, APPLICATIONS_OWN)
    postgres_server.psql(
        database_url,
        """INSERT INTO "Tenant" VALUES ('acme');
           INSERT INTO "AIUsage" (id, "tenantId", service, tokens, note) VALUES ('x', 'acme', 'chat', 5, 'mine')""",
    )
    migrated = command("migrate", DATABASE_URL=database_url)
    assert migrated.returncode == 0, migrated.stderr
    await insert(database_url, RECORD)
    rows = 'SELECT id, tokens, note, units::float8 FROM "AIUsage" ORDER BY service'
    assert postgres_server.psql(database_url, rows).splitlines() == ["x|5|mine|0", f"{RECORD.id}|7||2.5"]
    # The application then takes the documented columns into its model, beside its own: nothing is lost.
    tenant = "  tenant Tenant @relation(fields: [tenantId], references: [id])\n  note String?\n"
    merged = MODEL.replace("  userId ", tenant + "  userId ").replace("@id\n", "@id @default(uuid())\n")
    pushed = prisma.push(database_url, "model Tenant {\n  id String @id\n  usage AIUsage[]\n}\n" + merged)
    assert (pushed["unexecutable"], pushed["warnings"]) == ([], [])
    assert "DROP" not in pushed["sql"].replace("DROP NOT NULL", "").replace("DROP DEFAULT", "")
    assert postgres_server.psql(database_url, rows).splitlines() == ["x|5|mine|0", f"{RECORD.id}|7||2.5"]


async def test_a_table_that_the_application_changed_since_is_told(
    migrated_database: str, postgres_server: PostgresServer
) -> None:
    postgres_server.psql(migrated_database, 'ALTER TABLE "AIUsage" ADD COLUMN region text NOT NULL')
    migrated = command("migrate", DATABASE_URL=migrated_database)
    assert migrated.returncode == 1
    assert 'null value in column "region"' in migrated.stderr
