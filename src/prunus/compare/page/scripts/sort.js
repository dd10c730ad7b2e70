// Order of rows: by a value, rows that have none last whichever way.

function sorted(rows, value, descending) {
  const has = (row) => known(value(row));
  const compare = (a, b) => {
    const [one, other] = [value(a), value(b)];
    const order = typeof one === "string" ? one.localeCompare(other) : one - other;
    return descending ? -order : order;
  };
  return [...rows.filter(has).sort(compare), ...rows.filter((row) => !has(row))];
}
