// Search by section: sections.js has the text, each section is ranked by BM25 over its words
// and those of its titles, and shown with the sentence that holds most of the words sought.

const STOP = new Set(
  "a an and are as at be but by can do does for from how i if in is it its me my not of on or so that the their then there these this to was what when where which why will with you your"
    .split(" "),
);
// Words that readers use for what the book calls otherwise.
const SAME = { gray: "grey", image: "picture", photograph: "photo", color: "colour", own: "own" };

// A word's stem: enough to let 'samples', 'sampled' and 'sampling' find one another.
function stem(word) {
  const plain = word.normalize("NFD").replace(/\p{M}/gu, "").replaceAll("isation", "ization");
  const short = plain.replace(/(?<=..)ies$/, "y").replace(/(?<=[^su].)s$/, "");
  const root = short.replace(/(?<=...)(ing|ed|er|ization|ize|ise)$/, "").replace(/(?<=...)e$/, "");
  const single = root.replace(/([^aeiousl])\1$/, "$1");
  return SAME[short] ? stem(SAME[short] === short ? `${short} ` : SAME[short]) : single;
}

const split = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
const stems = (text) => split(text).map((word) => stem(word).trim());

const CODE = 0.1; // what a mention in code counts, beside one in prose

function count(terms, names) {
  const counts = new Map();
  const add = (term, n) => counts.set(term, (counts.get(term) ?? 0) + n);
  for (const term of terms) add(term, 1);
  for (const name of names) add(name, CODE);
  return counts;
}

let index;

function makeIndex() {
  const sections = SECTIONS.map(([address, page, title, text, code]) => {
    const terms = stems(text), names = stems(code);
    return {
      address, page, title, text,
      length: terms.length + CODE * names.length,
      counts: count(terms, names),
      titled: new Set(stems(title)),
      paged: new Set(stems(page)),
    };
  });
  const frequency = new Map();
  for (const { counts, titled } of sections)
    for (const term of new Set([...counts.keys(), ...titled]))
      frequency.set(term, (frequency.get(term) ?? 0) + 1);
  const mean = sections.reduce((sum, { length }) => sum + length, 0) / sections.length;
  return { sections, frequency, mean };
}

// BM25 with k1 = 1.2 and b = 0.75 (Robertson and Zaragoza 2009, eq. (3.15)); a word of the
// section's title counts as three more mentions, one of the page's as one.
function find(query, limit = 12) {
  index ??= makeIndex();
  const all = stems(query);
  const sought = [...new Set(all.filter((term) => !STOP.has(term)))];
  const terms = sought.length ? sought : [...new Set(all)];
  const { sections, frequency, mean } = index;
  const known = [...frequency.keys()];
  const wanted = terms.map((term) =>
    frequency.has(term) ? [term] : known.filter((other) => other.startsWith(term)));
  const score = (section) => {
    let [sum, matched] = [0, 0];
    for (const same of wanted) {
      let best = 0;
      for (const term of same) {
        const n = (section.counts.get(term) ?? 0) +
          3 * section.titled.has(term) + section.paged.has(term);
        const rarity = Math.log(1 + (sections.length - frequency.get(term) + 0.5) /
          (frequency.get(term) + 0.5));
        const damped = n + 1.2 * (0.25 + (0.75 * section.length) / mean);
        best = Math.max(best, (rarity * n * 2.2) / damped);
      }
      sum += best;
      matched += best > 0;
    }
    return sum * (matched / wanted.length) ** 2; // a section with all words comes first
  };
  return sections
    .map((section) => ({ ...section, score: score(section) }))
    .filter((section) => section.score > 0)
    .sort((a, b) => b.score - a.score)
    .slice(0, limit)
    .map((section) => ({ ...section, excerpt: excerpt(section.text, wanted.flat()) }));
}

// The window of some 30 words that holds most of the words sought, as [text, sought] pieces.
function excerpt(text, terms, size = 32) {
  const pieces = text.match(/\S+/g) ?? [];
  const hits = pieces.map((piece) => stems(piece).some((term) => terms.includes(term)));
  let [best, start] = [-1, 0];
  for (let i = 0; i < Math.max(1, pieces.length - size / 2); i++) {
    const inside = new Set(
      pieces.slice(i, i + size).filter((_, k) => hits[i + k]).flatMap(stems)).size;
    const sentence = i === 0 || /[.:?!]$/.test(pieces[i - 1]) ? 0.5 : 0;
    if (inside + sentence > best) [best, start] = [inside + sentence, i];
  }
  const shown = pieces.slice(start, start + size).map((piece, k) => [piece, hits[start + k]]);
  if (start) shown.unshift(["…", false]);
  if (start + size < pieces.length) shown.push(["…", false]);
  return shown;
}

function item({ address, page, title, excerpt: pieces }) {
  const li = document.createElement("li");
  const link = Object.assign(document.createElement("a"), { href: address, textContent: title });
  const where = Object.assign(document.createElement("span"), {
    className: "where", textContent: title === page ? "" : page,
  });
  const said = document.createElement("p");
  for (const [text, hit] of pieces) {
    said.append(hit ? Object.assign(document.createElement("mark"), { textContent: text }) : text);
    said.append(" ");
  }
  li.append(link, where, said);
  return li;
}

const wish = new URLSearchParams(location.search).get("q") ?? "";
document.querySelector(".search-page input").value = wish;
if (wish) {
  const found = find(wish);
  document.querySelector("p.found").textContent = found.length
    ? `“${wish}”: the ${found.length > 1 ? `${found.length} best sections` : "one section"} found.`
    : `Nothing was found for “${wish}”. Try one word of it, or the glossary.`;
  document.querySelector("ol.results").append(...found.map(item));
} else document.querySelector(".search-page input").focus();
