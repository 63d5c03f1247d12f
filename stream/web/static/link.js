// The connection to the worker: server-sent events, and what to say while there are none.

const FIRST_WAIT = 1000; // ms before another try ...
const LONGEST_WAIT = 8000; // ... doubling up to this
const REASONS = {
  401: "the worker wants a name and a password: load the page again",
  403: "the worker does not answer pages of this address",
  503: "the board has all the viewers it takes",
};

export class Link {
  /** `hear(event, content)` gets each piece of news; `tell()` is called when the state of the link may have changed. */
  constructor(hear, tell) {
    this.hear = hear;
    this.tell = tell;
    this.heard = null; // performance.now() of the last news
    this.problem = "";
    this.wait = FIRST_WAIT;
    this.path = "/live";
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => event.persisted && this.open(this.path));
  }

  /** Follow `path` from now on. */
  open(path) {
    this.close();
    this.path = path;
    const source = new EventSource(path);
    this.source = source;
    for (const event of ["snapshot", "alerts", "course"]) {
      source.addEventListener(event, (message) => {
        this.heard = performance.now();
        this.problem = "";
        this.wait = FIRST_WAIT;
        this.hear(event, JSON.parse(message.data));
      });
    }
    source.onerror = () => this.retry();
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  retry() {
    this.close();
    this.problem ||= "no connection";
    this.timer = setTimeout(() => this.again(), this.wait * (0.75 + 0.5 * Math.random()));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
    this.tell();
  }

  /** An EventSource does not say why it was refused: ask first. */
  async again() {
    const asking = new AbortController();
    try {
      const answer = await fetch(this.path, { signal: asking.signal, cache: "no-store" });
      asking.abort();
      if (answer.ok) {
        this.open(this.path);
        return;
      }
      this.problem = REASONS[answer.status] ?? `the worker answers ${answer.status}`;
    } catch {
      this.problem = "no connection";
    }
    this.retry();
  }

  /** Seconds since the last news; Infinity before the first. */
  get silence() {
    return this.heard === null ? Infinity : (performance.now() - this.heard) / 1000;
  }
}
