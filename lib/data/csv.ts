/** CSV with a header row: quoted fields, byte order marks and every kind of line break are understood. */
import { CsvError, parse } from "csv-parse/sync";
import { AffuseError } from "../errors.ts";
import { readText, writeFileAtomic } from "./files.ts";

export interface CsvTable {
  /** Column names, trimmed, in lower case. */
  columns: string[];
  /** One record per row, by column name; `line` is the row's line in the file, for messages. */
  rows: { line: number; values: Record<string, string> }[];
}

/**
 * Parses CSV text. Empty lines are skipped.
 * @param required column names that must occur
 * @throws ERR_AFFUSE_FORMAT with the line
 */
export function parseCsv(text: string, name: string, required: readonly string[] = []): CsvTable {
  let records: { record: string[]; info: { lines: number } }[];
  try {
    records = parse(text, {
      bom: true,
      skip_empty_lines: true,
      trim: true,
      relax_column_count: true,
      info: true,
      max_record_size: 1 << 20,
    }) as unknown as typeof records;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw new AffuseError("ERR_AFFUSE_FORMAT", `${name} is not valid CSV: ${error.message}.`, "", {
      cause: error,
    });
  }
  const head = records.shift();
  if (!head)
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${name} is empty, expected a header row ${required.join(",")}.`,
    );
  const columns = head.record.map((column) => column.toLowerCase());
  const twice = columns.find((column, i) => columns.indexOf(column) !== i);
  if (twice !== undefined)
    throw new AffuseError("ERR_AFFUSE_FORMAT", `${name}: the column ${JSON.stringify(twice)} occurs twice.`);
  const missing = required.filter((column) => !columns.includes(column));
  if (missing.length > 0) {
    throw new AffuseError(
      "ERR_AFFUSE_FORMAT",
      `${name}: expected the column ${missing.map((column) => JSON.stringify(column)).join(", ")}, got ${columns.join(",")}.`,
      "The first row must name the columns.",
    );
  }
  const rows = records.map(({ record, info }) => {
    if (record.length !== columns.length) {
      throw new AffuseError(
        "ERR_AFFUSE_FORMAT",
        `${name}, line ${info.lines}: expected ${columns.length} fields, got ${record.length}.`,
      );
    }
    const values: Record<string, string> = Object.create(null);
    columns.forEach((column, i) => {
      values[column] = record[i] as string;
    });
    return { line: info.lines, values };
  });
  return { columns, rows };
}

/** Reads a CSV file. Errors as parseCsv and readText. */
export function readCsv(file: string, required: readonly string[] = []): CsvTable {
  return parseCsv(readText(file), file, required);
}

/** CSV text; fields are quoted only where they must be. */
export function formatCsv(columns: readonly string[], rows: Iterable<readonly (string | number)[]>): string {
  const field = (value: string | number) => {
    const text = String(value);
    return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  let out = `${columns.map(field).join(",")}\n`;
  for (const row of rows) out += `${row.map(field).join(",")}\n`;
  return out;
}

/** Writes a CSV file atomically. */
export function writeCsv(
  file: string,
  columns: readonly string[],
  rows: Iterable<readonly (string | number)[]>,
  what = "the table",
): void {
  writeFileAtomic(file, formatCsv(columns, rows), what);
}
