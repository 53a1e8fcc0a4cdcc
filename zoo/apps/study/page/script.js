"use strict";
(() => {
  const one = (id) => document.getElementById(id);
  const study = JSON.parse(one("study").textContent);
  const served = document.body.dataset.server !== "";
  const slot = `picture-study-${study.id}`;
  // Where the browser keeps nothing (private windows), the study still works until the page is closed.
  const kept = {
    read() { try { return JSON.parse(localStorage.getItem(slot)); } catch { return null; } },
    write(value) { try { localStorage.setItem(slot, JSON.stringify(value)); } catch { /* see above */ } },
    clear() { try { localStorage.removeItem(slot); } catch { /* see above */ } },
  };
  let state = null; // what is kept: who, which form, the order of the questions, and the answers by step
  let steps = [];
  let shownSince = null; // null while pictures are loading
  let turn = 0; // of drawing the task: what has been overtaken while loading is dropped

  const show = (id) => { for (const name of ["intro", "task", "end"]) one(name).hidden = name !== id; };
  const shuffled = (list) => {
    const rest = [...list], found = [];
    while (rest.length) found.push(...rest.splice(crypto.getRandomValues(new Uint32Array(1))[0] % rest.length, 1));
    return found;
  };
  const identity = () => [...crypto.getRandomValues(new Uint8Array(8))].map((n) => n.toString(16).padStart(2, "0")).join("");
  const source = (picture) => `pictures/${picture}.webp`;

  const stepsOf = (form, order) => study.forms[form].flatMap((trial, number) =>
    order.filter((name) => trial.questions.includes(name)).map((question) => ({ trial, number, question })));

  // -- beginning ------------------------------------------------------------------------------------------------------

  const assigned = async () => {
    const asked = /^#form=(\d+)$/.exec(location.hash);
    if (asked && asked[1] >= 1 && asked[1] <= study.forms.length) return asked[1] - 1;
    if (!served) return shuffled(study.forms.keys())[0];
    const reply = await fetch("form", { method: "POST" });
    if (!reply.ok) throw new Error((await reply.json()).error);
    return (await reply.json()).form;
  };

  const begin = async () => {
    one("begin").disabled = true;
    one("begin-error").textContent = "";
    try {
      const form = await assigned();
      const order = shuffled(study.questions);
      state = {
        judge: identity(), name: one("name").value.trim(), form, order, at: 0, answers: [], sent: false,
        started: new Date().toISOString(), ended: null,
      };
      kept.write(state);
      open();
    } catch (error) {
      one("begin-error").textContent = `The study could not be begun (${error.message}): try again in a minute.`;
    } finally {
      one("begin").disabled = false;
    }
  };

  const open = () => {
    steps = stepsOf(state.form, state.order);
    if (state.at >= steps.length) finish(); else task();
  };

  // -- the task ---------------------------------------------------------------------------------------------------------

  const look = (picture, text) => {
    one("large-image").src = picture.src;
    one("large-image").alt = text;
    one("large").showModal();
  };

  const build = (trial) => {
    const count = trial.options.length;
    one("content").src = source(trial.content);
    one("style").src = source(trial.style);
    one("options").className = count > 4 ? "many rows" : count > 2 ? "many" : "few";
    one("options").style.setProperty("--columns", count > 4 ? Math.ceil(count / 2) : count);
    one("options").replaceChildren(...trial.options.map((picture, place) => {
      const box = document.createElement("div");
      box.className = "option";
      const take = document.createElement("button");
      take.className = "take";
      take.addEventListener("click", () => choose(place));
      const image = document.createElement("img");
      image.alt = `Result ${place + 1}`;
      image.src = source(picture);
      const names = count > 2 ? [`Choose ${place + 1}`] : place ? ["Right →", "Lower"] : ["← Left", "Upper"];
      take.append(image, ...names.map((name, narrow) => {
        const label = document.createElement("span");
        label.className = narrow ? "upright" : "wide";
        label.textContent = name;
        return label;
      }));
      const enlarge = document.createElement("button");
      enlarge.className = "look";
      enlarge.textContent = "Enlarge";
      enlarge.setAttribute("aria-label", `Enlarge result ${place + 1}`);
      enlarge.addEventListener("click", () => look(image, `Result ${place + 1}, enlarged`));
      box.append(take, enlarge);
      return box;
    }));
    one("options").dataset.trial = trial.trial;
  };

  const load = (yes) => {
    one("task").toggleAttribute("data-loading", yes);
    for (const button of document.querySelectorAll(".take")) button.disabled = yes;
  };

  // A question is open from when all its pictures are seen until it is answered.
  const ready = (yes) => {
    one("task").toggleAttribute("data-ready", yes);
    shownSince = yes ? performance.now() : null;
  };

  const task = async () => {
    const own = ++turn;
    const { trial, number, question } = steps[state.at];
    ready(false);
    show("task");
    one("bar").value = state.at / steps.length;
    one("count").textContent = `Comparison ${number + 1} of ${study.forms[state.form].length}, `
      + `question ${state.at + 1} of ${steps.length}`;
    one("question").textContent = study.texts[question];
    one("question").classList.remove("fresh");
    void one("question").offsetWidth; // begins the animation anew
    one("question").classList.add("fresh");
    one("back").disabled = state.at === 0;
    one("load-error").textContent = "";
    if (one("options").dataset.trial !== trial.trial) {
      build(trial);
      load(true);
    }
    try {
      await Promise.all([...one("task").querySelectorAll("img")].map((image) => image.decode()));
    } catch {
      if (own === turn) one("load-error").textContent =
        "A picture could not be loaded. Was the folder unpacked whole? Then load this page again.";
      return;
    }
    if (own !== turn) return;
    load(false);
    ready(true);
    const next = steps.slice(state.at).find((step) => step.trial !== trial);
    if (next) for (const picture of next.trial.options) new Image().src = source(picture);
  };

  const choose = (place) => {
    if (shownSince === null || place >= steps[state.at].trial.options.length) return;
    const { trial, question } = steps[state.at];
    const seconds = Math.round(performance.now() - shownSince) / 1000;
    ready(false);
    state.answers[state.at] = { trial: trial.trial, question, choice: trial.options[place], order: trial.options, seconds };
    state.at += 1;
    state.sent = false;
    if (state.at >= steps.length) state.ended = new Date().toISOString();
    kept.write(state);
    if (state.at >= steps.length) finish(); else task();
  };

  const back = () => {
    if (!one("task").hidden && state.at > 0) { state.at -= 1; kept.write(state); task(); }
  };

  document.addEventListener("keydown", (event) => {
    if (one("task").hidden || one("large").open || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const { options } = steps[state.at].trial;
    if (options.length === 2 && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      event.preventDefault();
      choose(event.key === "ArrowLeft" ? 0 : 1);
    } else if (/^[1-9]$/.test(event.key)) {
      choose(Number(event.key) - 1);
    } else if (event.key === "Backspace") {
      event.preventDefault();
      back();
    }
  });

  // -- the end ------------------------------------------------------------------------------------------------------------

  const answers = () => JSON.stringify({
    schema: 1, study: study.id, judge: state.judge, name: state.name, form: state.form, started: state.started,
    ended: state.ended, answers: state.answers.filter(Boolean),
  }, null, 1);

  const finish = () => {
    turn += 1;
    ready(false);
    const done = state.at >= steps.length;
    const count = state.answers.filter(Boolean).length;
    show("end");
    one("end-title").textContent = done ? "Thank you" : "Stopped";
    one("end-text").textContent = `You answered ${count} of ${steps.length} questions. ` + (served
      ? "Your answers are sent to the computer that asked them."
      : "Save your answers as a file, and send it to whoever asked you. Nothing has left this device by itself.");
    one("resume").hidden = done;
    one("send").hidden = true;
    one("save").classList.toggle("main", !served);
    one("sent").textContent = "";
    if (served && count) send();
    one("end-title").tabIndex = -1;
    one("end-title").focus();
  };

  const send = async () => {
    one("send").hidden = true;
    one("sent").className = "";
    if (state.sent) { one("sent").textContent = "Sent."; return; }
    one("sent").textContent = "Sending…";
    try {
      const reply = await fetch("answers", { method: "POST", headers: { "Content-Type": "application/json" }, body: answers() });
      const said = await reply.json();
      if (!reply.ok) throw new Error(said.error);
      state.sent = true;
      kept.write(state);
      one("sent").textContent = "Sent.";
    } catch (error) {
      one("sent").className = "error";
      one("sent").textContent = `Your answers could not be sent (${error.message}). Try again, or save them as a file.`;
      one("send").hidden = false;
    }
  };

  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([answers()], { type: "application/json" }));
    link.download = `answers-${state.judge}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };

  // -- wiring -------------------------------------------------------------------------------------------------------------

  one("begin").addEventListener("click", begin);
  one("close").addEventListener("click", () => one("large").close());
  one("back").addEventListener("click", back);
  one("pause").addEventListener("click", finish);
  one("resume").addEventListener("click", task);
  one("send").addEventListener("click", send);
  one("save").addEventListener("click", save);
  one("again").addEventListener("click", () => {
    if (!state.sent && state.answers.length && !confirm("Have the answers been saved? They are removed from this device.")) return;
    kept.clear();
    state = null;
    one("name").value = "";
    show("intro");
  });
  for (const name of ["content", "style"]) {
    one(`look-${name}`).setAttribute("aria-label", name === "content" ? "Enlarge the photograph" : "Enlarge the style picture");
    one(`look-${name}`).addEventListener("click", () => look(one(name), one(name).alt));
  }
  const most = Math.max(...study.forms.map((form) => form.reduce((sum, trial) => sum + trial.questions.length, 0)));
  one("amount").textContent = `There are about ${most} questions, a few seconds each.`;
  one("where").textContent = served
    ? "Your answers are sent to the computer that shows this page, and nowhere else."
    : "All of it stays on this device until you send the file yourself.";
  state = kept.read();
  if (state && study.forms[state.form]) open(); else { state = null; show("intro"); }
})();
