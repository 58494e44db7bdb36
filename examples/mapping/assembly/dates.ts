// The partner's dates, 24.12.2026 18:05, as RFC 3339 in UTC.

const DAYS: StaticArray<i32> = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

function days(month: i32, year: i32): i32 {
  const leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  return month == 2 && leap ? 29 : DAYS[month - 1];
}

/** The digits of text[from..to] as a number; -1 if they are none. */
function digits(text: string, from: i32, to: i32): i32 {
  let n = 0;
  for (let i = from; i < to; i++) {
    const c = text.charCodeAt(i);
    if (c < 0x30 || c > 0x39) return -1;
    n = n * 10 + (c - 0x30);
  }
  return n;
}

/**
 * DD.MM.YYYY, with HH:MM behind it or without, at so many minutes east of UTC,
 * as YYYY-MM-DDTHH:MM:00Z; null if it is no date.
 */
export function normalized(text: string, offset: i32): string | null {
  if (text.length != 10 && text.length != 16) return null;
  if (text.charAt(2) != "." || text.charAt(5) != ".") return null;
  let day = digits(text, 0, 2);
  let month = digits(text, 3, 5);
  let year = digits(text, 6, 10);
  let minute = 0;
  if (text.length == 16) {
    const hours = digits(text, 11, 13);
    const minutes = digits(text, 14, 16);
    if (text.charAt(10) != " " || text.charAt(13) != ":" || hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return null;
    minute = hours * 60 + minutes;
  }
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > days(month, year)) return null;
  minute -= offset;
  if (minute < 0) {
    minute += 1440;
    if (--day == 0) {
      if (--month == 0) {
        month = 12;
        year--;
      }
      day = days(month, year);
    }
  } else if (minute >= 1440) {
    minute -= 1440;
    if (++day > days(month, year)) {
      day = 1;
      if (++month == 13) {
        month = 1;
        year++;
      }
    }
  }
  return two(year / 100) + two(year % 100) + "-" + two(month) + "-" + two(day) + "T" + two(minute / 60) + ":" + two(minute % 60) + ":00Z";
}

function two(n: i32): string {
  return n.toString().padStart(2, "0");
}
