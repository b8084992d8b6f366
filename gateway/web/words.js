// What the page says: statuses, channels, times. Pure functions of values.

export const STATUS = {
  "scheduled": { word: "Scheduled", icon: "clock", tone: "", text: "It waits for its time." },
  "queued": { word: "Queued", icon: "clock", tone: "", text: "Stored; it is sent as soon as a seat is free." },
  "held": { word: "Held", icon: "pause", tone: "warn", text: "Stopped until somebody looks at it." },
  "sending": { word: "Sending", icon: "clock", tone: "", text: "It is on its way to the provider." },
  "unknown": { word: "Outcome unknown", icon: "warning", tone: "warn", text: "The provider gave no believable answer: it may have been sent or not. A later report settles it." },
  "accepted": { word: "Accepted", icon: "tick", tone: "", text: "The provider has it." },
  "sent": { word: "Sent", icon: "tick", tone: "", text: "The provider handed it to the network." },
  "undelivered": { word: "Undelivered", icon: "cross", tone: "bad", text: "The network gave it back." },
  "failed": { word: "Failed", icon: "cross", tone: "bad", text: "It was not sent." },
  "delivered": { word: "Delivered", icon: "ticks", tone: "", text: "It arrived." },
  "read": { word: "Read", icon: "ticks", tone: "seen", text: "It was read." },
  "bounced": { word: "Bounced", icon: "cross", tone: "bad", text: "It came back." },
  "rejected": { word: "Rejected", icon: "stop", tone: "bad", text: "The gateway refused to send it." },
  "canceled": { word: "Canceled", icon: "stop", tone: "", text: "It was canceled before it was sent." },
  "expired": { word: "Expired", icon: "stop", tone: "bad", text: "Its time ran out before it could be sent." },
  "received": { word: "Received", icon: "", tone: "", text: "" },
};

const CHANNELS = { sms: "SMS", whatsapp: "WhatsApp", rcs: "RCS", email: "Email" };

export const channelWord = (channel) => CHANNELS[channel] ?? String(channel);

/** A status of the gateway, also one that this page does not know yet. */
export const statusOf = (status) =>
  STATUS[status] ?? { word: String(status), icon: "clock", tone: "", text: "" };

/** What an unknown outcome leads to depends on what the sender asked for. */
export function statusText(message) {
  const { text } = statusOf(message.status);
  if (message.status !== "unknown") return text;
  return message.on_unknown === "resend"
    ? `${text} As asked for, it may be sent again.`
    : `${text} It is not sent again by itself, so that nobody gets it twice.`;
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const SHORT = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const DATE = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const LONG = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export const clock = (text) => TIME.format(new Date(text));
export const moment = (text) => (text ? FULL.format(new Date(text)) : "");

/** Whole days between a moment and now, by the calendar. */
function daysAgo(date, now) {
  const start = (d) => Date.UTC(d.getFullYear(), d.getMonth(), d.getDate());
  return Math.round((start(now) - start(date)) / 86_400_000);
}

/** A moment as briefly as a list needs it. */
export function brief(text, now = new Date()) {
  if (!text) return "";
  const date = new Date(text);
  const ago = daysAgo(date, now);
  if (ago <= 0) return TIME.format(date);
  if (ago === 1) return "Yesterday";
  if (ago < 7) return WEEKDAY.format(date);
  return date.getFullYear() === now.getFullYear() ? SHORT.format(date) : LONG.format(date);
}

/** The day of a message, for the line between days. */
export function dayWord(text, now = new Date()) {
  const date = new Date(text);
  const ago = daysAgo(date, now);
  if (ago === 0) return "Today";
  if (ago === 1) return "Yesterday";
  return date.getFullYear() === now.getFullYear() ? DATE.format(date) : LONG.format(date);
}

export const dayKey = (text) => new Date(text).toDateString();

/** Whom a conversation is with. */
export const titleOf = (conversation) => conversation.name || conversation.address;

/** Up to two letters for a round badge; none for a bare number. */
export function initials(name) {
  const words = (name ?? "").split(/\s+/).filter((word) => /^\p{L}/u.test(word));
  const ends = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return ends.map((word) => [...word][0].toUpperCase()).join("");
}

/** One line that stands for a message where there is no room for more. */
export function summary(message) {
  const text = message.subject || message.body || message.content?.title || message.content?.name;
  const line = String(text || message.type).replace(/\s+/g, " ").trim();
  return line.length > 140 ? `${line.slice(0, 139)}…` : line;
}

/** What it means that somebody said STOP. */
export const optOutHint = (conversation) =>
  `They have opted out of ${channelWord(conversation.channel)}: what you write is rejected until they write START.`;

/** What WhatsApp's 24-hour window means for a conversation now; blank while it is open. */
export function windowHint(conversation, now = Date.now()) {
  if (conversation.channel !== "whatsapp") return "";
  const until = conversation.window_expires_at;
  if (!until) return "They have not written yet: WhatsApp delivers free text only within 24 hours after a person writes.";
  if (new Date(until).getTime() > now) return "";
  return `The 24-hour window closed ${moment(until)}: WhatsApp delivers only templates until they write again.`;
}
