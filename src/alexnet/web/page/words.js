/**
 * The page's sentences, in the language of the reader.
 *
 * A sentence has places in braces; `words.of("layer.size", {side: 55})` fills them.
 */

/** @typedef {"en" | "zh"} Language */

const LANGUAGES = /** @type {Language[]} */ (["en", "zh"]);
const LEAST = 1e-5;
const KEPT = "alexnet.language";

export class Words {
  /**
   * @param {Record<string, Record<string, string>>} catalogue by language and key
   * @param {Language} language
   */
  constructor(catalogue, language) {
    this.catalogue = catalogue;
    this.language = language;
    this.tag = language === "zh" ? "zh-Hans" : "en";
    this.whole = new Intl.NumberFormat(this.tag);
    this.shares = new Intl.NumberFormat(this.tag, { style: "percent", maximumSignificantDigits: 3 });
  }

  /**
   * The sentence of a key with values in its places; the key itself where no sentence is known.
   * @param {string} key @param {Record<string, string | number>} [values]
   */
  of(key, values = {}) {
    const sentence = this.catalogue[this.language]?.[key] ?? this.catalogue.en?.[key] ?? key;
    return sentence.replace(/\{(\w+)\}/g, (place, name) => (name in values ? String(values[name]) : place));
  }

  /** @param {string} key */
  has(key) {
    return key in (this.catalogue[this.language] ?? {});
  }

  /** A whole number with its thousands apart. @param {number} value */
  count(value) {
    return this.whole.format(value);
  }

  /** A share as per cent; one of less than a thousandth of it only as that. @param {number} value */
  percent(value) {
    if (value > 0 && value < LEAST) return `< ${this.shares.format(LEAST)}`;
    return this.shares.format(value);
  }
}

/**
 * The language to start in: what the reader chose before, what the page was made in, what the
 * browser prefers.
 * @param {string | null | undefined} made
 * @returns {Language}
 */
export function firstLanguage(made) {
  const wanted = [kept(), made, ...(navigator.languages ?? [])];
  for (const one of wanted) {
    const found = LANGUAGES.find((language) => one && one.toLowerCase().startsWith(language));
    if (found) return found;
  }
  return "en";
}

/** Keep the reader's choice. @param {Language} language */
export function keepLanguage(language) {
  try {
    sessionStorage.setItem(KEPT, language);
  } catch {
    /* a browser that keeps nothing */
  }
}

function kept() {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

/**
 * What a path is called in short: a file's name, a folder's with that of the one around it.
 * @param {string} path
 */
export function shortPath(path) {
  const parts = path.split(/[\\/]+/).filter(Boolean);
  return parts.slice(/\.\w+$/.test(path) ? -1 : -2).join("/");
}

/**
 * A number as it is read under the pointer: four significant digits.
 * @param {number} value
 */
export function short(value) {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(2).replace("-", "−").replace("e−", "e−").replace("e+", "e");
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : size >= 0.1 ? 4 : 5;
  return value.toFixed(digits).replace("-", "−");
}
