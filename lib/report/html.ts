/** Building HTML so that text can never become markup. */

/** Markup that is safe as it stands. Only {@link html} makes it, out of literals in this package's source. */
export class Markup {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

export type Child = Markup | string | number | null | undefined | false | readonly Child[];

const ENTITIES: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Text as HTML, for content and for quoted attributes alike. Control characters that
 * HTML forbids, and those that turn the direction of what follows, become "�". */
export function escapeText(text: string): string {
  return (
    text
      .replace(/[&<>"']/g, (sign) => ENTITIES[sign] as string)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd")
  );
}

function render(child: Child): string {
  if (child === null || child === undefined || child === false) return "";
  if (child instanceof Markup) return child.text;
  if (typeof child === "object") return child.map(render).join("");
  return escapeText(String(child));
}

/** Template tag: literals are markup, values are escaped unless they are {@link Markup} (or lists of it). */
export function html(literals: TemplateStringsArray, ...values: Child[]): Markup {
  let text = literals[0] as string;
  values.forEach((value, i) => {
    text += render(value) + (literals[i + 1] as string);
  });
  return new Markup(text);
}

function finite(value: number | null | undefined): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

/** "–" for what is not a finite number. */
export function fixed(value: number | null | undefined, digits = 3): string {
  return finite(value) ? value.toFixed(digits).replace("-", "−") : "–";
}

/** A share 0 … 1 in percent. */
export function percent(value: number | null | undefined, digits = 1): string {
  return finite(value) ? `${(100 * value).toFixed(digits)} %` : "–";
}

/** A number fit for an SVG attribute: finite, two decimals. */
export function coordinate(value: number): string {
  return String(Math.round((Number.isFinite(value) ? value : 0) * 100) / 100);
}
