// How many SMS segments a text takes (3GPP TS 23.038 and 23.040), as gateway/segments.py counts.

const BASIC = new Set("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà");
const EXTENSION = new Set("\f^{}\\[~]|€");

/** {encoding, units, segments} of a text; an empty text is one segment. */
export function count(text) {
  const characters = [...text];
  if (characters.every((c) => BASIC.has(c) || EXTENSION.has(c))) {
    return cut("GSM-7", characters.map((c) => (EXTENSION.has(c) ? 2 : 1)), 160, 153);
  }
  return cut("UCS-2", characters.map((c) => c.length), 70, 67);
}

function cut(encoding, sizes, single, part) {
  const units = sizes.reduce((sum, size) => sum + size, 0);
  if (units <= single) return { encoding, units, segments: 1 };
  let segments = 1;
  let room = part;
  for (const size of sizes) {
    if (size > room) {
      segments += 1;
      room = part;
    }
    room -= size;
  }
  return { encoding, units, segments };
}

/** What a writer is told while writing. */
export function counted(text, channel) {
  const characters = [...text].length;
  const letters = `${characters} ${characters === 1 ? "character" : "characters"}`;
  if (channel !== "sms" || !characters) return letters;
  const { encoding, segments } = count(text);
  return `${letters} · ${segments} ${segments === 1 ? "segment" : "segments"} · ${encoding}`;
}
