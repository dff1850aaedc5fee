/** Opens the report in a real browser: AFFUSE_CHROMIUM, or /usr/bin/chromium. Skipped, and says so, where there is none. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { renderReport, type ReportData, writeReport } from "../../lib/report/index.ts";
import { sampleReport } from "./sample.ts";

const executablePath = process.env.AFFUSE_CHROMIUM ?? "/usr/bin/chromium";
const test = suite("report in a browser");
const folder = mkdtempSync(path.join(os.tmpdir(), "affuse-browser-"));
const file = path.join(folder, "report.html");
let browser: Browser;

test.before(async () => {
  writeReport(file, sampleReport());
  browser = await chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
  });
});
test.after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

// What runs inside the page is given as text: this project's types know no document.

/** Number of elements with text of their own that is smaller than 10 px. */
const SMALL_TEXTS = `[...document.querySelectorAll("main *")].filter((element) =>
  [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) &&
  parseFloat(getComputedStyle(element).fontSize) < 10).length`;

/** WCAG 2 contrast of the text that stands out least from the colour behind it. */
const LOWEST_CONTRAST = `(() => {
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parse = (text) => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    return parts.length === 3 ? [...parts, 1] : parts;
  };
  const behind = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = parse(getComputedStyle(element).backgroundColor);
    if (own[3] === 1) return own;
    const below = behind(element.parentElement);
    return [0, 1, 2].map((i) => own[3] * own[i] + (1 - own[3]) * below[i]).concat(1);
  };
  let lowest = { ratio: 99, text: "" };
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent).join("").trim();
    if (!text || element.closest("svg")) continue;
    const a = luminance(parse(getComputedStyle(element).color));
    const b = luminance(behind(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < lowest.ratio) lowest = { ratio, text: element.tagName + " " + element.className + " " + text };
  }
  return lowest;
})()`;

interface Opened {
  page: Page;
  /** Console errors, page errors, and every address asked for. */
  complaints: string[];
  requests: string[];
}

async function open(target: string, width: number, height: number, colorScheme: "light" | "dark" = "light"): Promise<Opened> {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme });
  const complaints: string[] = [];
  const requests: string[] = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => {
    complaints.push(`dialog ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => requests.push(request.url().slice(0, 60)));
  await page.goto(pathToFileURL(target).href);
  await page.waitForLoadState("networkidle");
  return { page, complaints, requests };
}

for (const [width, height, scheme] of [[1440, 900, "light"], [390, 844, "light"], [390, 844, "dark"]] as const) {
  test(`at ${width} px, ${scheme}: complete, quiet, within its width`, async () => {
    const { page, complaints, requests } = await open(file, width, height, scheme);
    assert.equal(complaints, []);
    const away = requests.filter((url) => !url.startsWith("file:") && !url.startsWith("data:image/png"));
    assert.equal(away, [], "no network");
    assert.is(requests.filter((url) => url.startsWith("file:")).length, 1, "no other file");

    const wide = (await page.evaluate("document.documentElement.scrollWidth")) as number;
    assert.ok(wide <= width, `page is ${wide} px wide in a window of ${width}`);
    assert.is(await page.locator(".confusion-card").count(), 7);
    assert.is(await page.locator("#results .bars svg.bar").count(), 7);
    assert.is(await page.locator("#training svg.plot").count(), 12);
    assert.is(await page.locator("#clips svg.attention").count(), 4);
    assert.is(await page.locator("#clips .ribbon i").count(), sampleReport().clips?.reduce((n, c) => n + (c.expressive?.visual?.length ?? 0), 0));
    const images: unknown = await page.evaluate(`[...document.querySelectorAll("#clips img")].map((image) => image.naturalWidth)`);
    assert.equal(images, [576, 576, 576, 576]);

    // Nothing is drawn with no size, and every drawing has words for those who do not see it.
    const flat = await page.locator("svg").evaluateAll((all) => all.filter((svg) => svg.clientWidth < 10 || svg.clientHeight < 5).length);
    assert.is(flat, 0);
    const wordless = await page
      .locator("svg:not([aria-hidden=true])")
      .evaluateAll((all) => all.filter((svg) => !svg.getAttribute("aria-label")).length);
    assert.is(wordless, 0);
    assert.is(await page.evaluate(SMALL_TEXTS), 0, "text smaller than 10 px");
    await page.close();
  });
}

test("words stand out from what is behind them, light and dark", async () => {
  for (const scheme of ["light", "dark"] as const) {
    const { page } = await open(file, 1440, 900, scheme);
    const worst = (await page.evaluate(LOWEST_CONTRAST)) as { ratio: number; text: string };
    assert.ok(worst.ratio >= 4.5, `${scheme}: contrast ${worst.ratio.toFixed(2)} at "${worst.text}"`);
    await page.close();
  }
});

test("hostile names are shown, not run", async () => {
  const hostile = `"><script>document.title="owned"</script><img src="http://127.0.0.1:9/x" onerror="alert(1)">`;
  const sample = sampleReport();
  const data: ReportData = { ...sample, title: "plain", clips: sample.clips?.map((clip) => ({ ...clip, name: hostile.repeat(3) })) };
  const target = path.join(folder, "hostile.html");
  writeReport(target, data);
  const { page, complaints, requests } = await open(target, 390, 844);
  assert.equal(complaints, []);
  assert.is(await page.title(), "plain");
  assert.ok((await page.locator("#clips h3").first().textContent())?.includes(`<script>document.title="owned"</script>`));
  assert.is(requests.filter((url) => url.startsWith("http")).length, 0);
  assert.ok(((await page.evaluate("document.documentElement.scrollWidth")) as number) <= 390, "long names wrap");
  await page.close();
});

test("the page's own policy keeps markup that slipped through from loading or running anything", async () => {
  const target = path.join(folder, "slipped.html");
  const slipped = `<script>document.title="owned"</script><img src="http://127.0.0.1:9/x">`;
  writeFileSync(target, renderReport(sampleReport()).replace("<main>", `<main>${slipped}`));
  const { page, complaints } = await open(target, 800, 600);
  assert.is(await page.title(), sampleReport().title);
  assert.is(complaints.filter((text) => text.includes("Content Security Policy")).length, 2);
  await page.close();
});

if (existsSync(executablePath)) test.run();
else {
  rmSync(folder, { recursive: true, force: true });
  console.log(`SKIPPED report in a browser: no ${executablePath}; set AFFUSE_CHROMIUM to a Chromium or Chrome.`);
}
