// The switch of the agent's actions: what is halted, and a dialog that asks for a reason and then asks again.

const $ = (id) => document.getElementById(id);
const MOST_SHOWN = 3;
const ALL = "all symbols";

const time = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

export class Switch {
  /** `say(element, text)` sets a text; `announce(text)` tells those who cannot see. */
  constructor(say, announce) {
    this.say = say;
    this.announce = announce;
    this.control = "halt";
    this.again = false; // the second step: the word is to be typed
    $("halt").addEventListener("click", () => this.open("halt"));
    $("resume").addEventListener("click", () => this.open("resume"));
    $("switch-cancel").addEventListener("click", () => $("switch").close());
    $("switch-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.goOn();
    });
  }

  /** What the worker says, and the symbol whose page is open. */
  show(snapshot, symbol) {
    this.snapshot = snapshot;
    this.symbol = symbol;
    const { halts, partitions } = snapshot;
    const lines = halts.slice(0, MOST_SHOWN).map((halt) => {
      const part = halt.partitions.length < partitions.length ? `, in partition ${halt.partitions.join(", ")} only` : "";
      const what = halt.symbol === null ? "Actions halted" : `Actions of ${halt.symbol} halted`;
      return `${what} since ${time(halt.since_ms)} UTC by ${halt.by}${part}: ${halt.reason}`;
    });
    if (halts.length > MOST_SHOWN) lines.push(`and ${halts.length - MOST_SHOWN} more halts; tapewatch audit lists them`);
    this.say($("halted-text"), lines.join("\n"));
    $("halted").hidden = !halts.length;
    $("halt").hidden = !snapshot.kill_switch;
    $("resume").hidden = !snapshot.kill_switch || !halts.length;
  }

  open(control) {
    this.control = control;
    this.again = false;
    const scopes = control === "halt" ? [null, ...(this.symbol === null ? [] : [this.symbol])] : [...new Set(this.snapshot.halts.map((halt) => halt.symbol))];
    $("switch-scope").replaceChildren(...scopes.map((symbol) => new Option(symbol ?? ALL, symbol ?? "")));
    for (const id of ["switch-reason", "switch-typed"]) $(id).value = "";
    this.draw();
    $("switch").showModal();
    $("switch-reason").focus();
  }

  draw() {
    const word = this.control.toUpperCase();
    const scope = $("switch-scope").selectedOptions[0]?.text ?? ALL;
    this.say($("switch-title"), this.control === "halt" ? "Halt the agent's actions" : "Resume the agent's actions");
    this.say($("switch-what"), this.control === "halt" ? "Each of them is flat from the next tick on, in all partitions, until it is resumed." : "The agent acts again from the next tick on, in all partitions.");
    this.say($("switch-word"), `To ${this.control} ${scope}, type ${word}`);
    this.say($("switch-go"), this.again ? (this.control === "halt" ? "Halt actions" : "Resume actions") : "Go on");
    this.say($("switch-problem"), "");
    for (const id of ["switch-scope", "switch-reason", "switch-by"]) $(id).disabled = this.again;
    $("switch-by").parentElement.hidden = !this.snapshot.asks_name;
    $("switch-typed").parentElement.hidden = !this.again;
    $("switch-go").disabled = false;
  }

  async goOn() {
    if (!this.again) {
      const lacking = !$("switch-reason").value.trim() ? ["switch-reason", "Say why: the reason is kept."] : this.snapshot.asks_name && !$("switch-by").value.trim() ? ["switch-by", "Say who you are: the name is kept."] : null;
      if (lacking) {
        this.say($("switch-problem"), lacking[1]);
        $(lacking[0]).focus();
        return;
      }
      this.again = true;
      this.draw();
      $("switch-typed").focus();
      return;
    }
    const word = this.control.toUpperCase();
    if ($("switch-typed").value.trim() !== word) {
      this.say($("switch-problem"), `Type ${word}, or cancel.`);
      $("switch-typed").focus();
      return;
    }
    $("switch-go").disabled = true;
    const problem = await this.ask();
    $("switch-go").disabled = false;
    this.say($("switch-problem"), problem);
    if (problem) return;
    $("switch").close();
    this.announce(this.control === "halt" ? "Halt asked for; the banner says when it is in force." : "Asked to resume.");
  }

  /** Empty, or what went wrong. */
  async ask() {
    const body = { control: this.control, reason: $("switch-reason").value, by: $("switch-by").value, typed: $("switch-typed").value.trim(), symbol: $("switch-scope").value || null };
    try {
      const answer = await fetch("/control", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      return answer.ok ? "" : `Not done: ${(await answer.text()).trim()}`;
    } catch {
      return "Not done, or not known: no connection to the worker.";
    }
  }
}
