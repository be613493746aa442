//! The results.

use serde::Serialize;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// The table's name.
    pub(crate) table: &'static str,
    /// The case's name.
    pub(crate) case: &'static str,
    /// How many threads took part.
    pub(crate) threads: usize,
    /// How many handles were live all the time.
    pub(crate) live: usize,
    /// Million operations per second, all threads together.
    pub(crate) mops: f64,
    /// Heap bytes per live handle, after the fill and without the heap's own overhead.
    pub(crate) bytes_per_handle: f64,
}

/// Prints a table: a line for each case, threads and number of live handles; a column for each table.
pub(crate) fn print(rows: &[Row]) {
    let mut tables: Vec<&str> = Vec::new();
    let mut lines: Vec<(&str, usize, usize)> = Vec::new();
    for row in rows {
        let line = (row.case, row.threads, row.live);
        if !tables.contains(&row.table) {
            tables.push(row.table);
        }
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    println!("\nmillion operations per second");
    heading(&tables);
    for (case, threads, live) in lines {
        print!("| {case:<15} | {threads:>7} | {live:>9} |");
        for table in &tables {
            let found = rows.iter().find(|r| (r.table, r.case, r.threads, r.live) == (table, case, threads, live));
            print!(" {:>12.2} |", found.map_or(f64::NAN, |row| row.mops));
        }
        println!();
    }
    println!("\nbytes per live handle");
    heading(&tables);
    let mut lives: Vec<usize> = rows.iter().map(|row| row.live).collect();
    lives.sort_unstable();
    lives.dedup();
    for live in lives {
        print!("| {:<15} | {:>7} | {live:>9} |", "memory", "");
        for table in &tables {
            let found = rows.iter().find(|row| row.table == *table && row.live == live);
            print!(" {:>12.1} |", found.map_or(f64::NAN, |row| row.bytes_per_handle));
        }
        println!();
    }
}

fn heading(tables: &[&str]) {
    print!("| {:<15} | {:>7} | {:>9} |", "case", "threads", "live");
    for table in tables {
        print!(" {table:>12} |");
    }
    println!();
    print!("|:{:-<16}|{:->8}:|{:->10}:|", "", "", "");
    for _ in tables {
        print!("{:->13}:|", "");
    }
    println!();
}
