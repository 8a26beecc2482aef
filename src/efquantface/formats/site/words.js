// The page's words for a similarity and for the threshold of its decision.

/** `same`, `different`, or an empty string where no threshold was measured. */
export function decided(cosine, choice) {
  if (!choice) return "";
  return cosine >= choice.threshold ? "same" : "different";
}

/** The similarity and the decision in words. */
export function told(cosine, choice) {
  const number = `Similarity ${cosine.toFixed(4)}`;
  if (!choice) return `${number}.`;
  const person = { same: "Same person", different: "Different people" }[decided(cosine, choice)];
  return `${person}. ${number}, threshold ${choice.threshold.toFixed(4)}.`;
}

/** Fill the list of FARs, and say on which set they were measured. */
export function fillRates(decisions, row, list, note) {
  row.hidden = decisions.length === 0;
  for (const { far, preferred } of decisions) {
    const once = Math.round(1 / far).toLocaleString("en");
    list.add(new Option(`1 in ${once} (FAR ${far})`, far, preferred, preferred));
  }
  const from = [...new Set(decisions.map((decision) => decision.measured))].join("; ");
  note.textContent = from
    ? `Thresholds measured on ${from}.`
    : "No threshold was measured for this model, so no decision is made.";
}
